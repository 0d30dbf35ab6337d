"""Number the exercises by chapter: 4.1, 4.2 and so on, as the chapters carry their numbers in their names."""

import re


def number_by_chapter(app, env):
    for docname, numbers in env.toc_fignumbers.items():
        chapter = re.match(r"book/chapters/(\d+)-", docname)
        if chapter and "exercise" in numbers:
            for count, label in enumerate(numbers["exercise"], start=1):
                numbers["exercise"][label] = (int(chapter[1]), count)
    return []  # no further page has to be written


def setup(app):
    app.connect("env-get-updated", number_by_chapter, priority=900)  # after Sphinx has numbered them
    return {"parallel_read_safe": True}
