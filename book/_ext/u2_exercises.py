"""Number the exercises by chapter: 4.1, 4.2 and so on. A chapter's number is its place in the contents."""


def number_by_chapter(app, env):
    contents = env.toctree_includes[app.config.root_doc]
    chapters = [docname for docname in contents if docname.startswith("book/chapters/")]
    for number, docname in enumerate(chapters, start=1):
        exercises = env.toc_fignumbers.get(docname, {}).get("exercise", {})
        for count, label in enumerate(exercises, start=1):
            exercises[label] = (number, count)
    return []  # no further page has to be written


def setup(app):
    app.connect("env-get-updated", number_by_chapter, priority=900)  # after Sphinx has numbered them
    return {"parallel_read_safe": True}
