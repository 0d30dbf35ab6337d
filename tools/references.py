"""The papers of book/references.bib: how a link to one is worded, and the page that lists them all.

A citation is a plain link to the paper's address, [Qin et al., 2020](https://doi.org/...): it reads the same
on the site, in JupyterLab and on Colab. Its words are written by `make links`. Type none,
[](https://doi.org/...), or a year, [2020](https://doi.org/...). Where the authors are a part of the sentence,
type [(2020)](https://doi.org/...) for [Qin et al. (2020)](https://doi.org/...). Other words stay.
"""

import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlparse

BIBLIOGRAPHY = "book/references.bib"
ENTRY = re.compile(r"^@\w+\{(\w+),\n(.*?)\n\}$", re.MULTILINE | re.DOTALL)
FIELD = re.compile(r"^\s*(\w+)\s*=\s*\{(.*)\},?$", re.MULTILINE)
LINK = re.compile(r"\[([^][]*)\]\(([^()\s]+)\)")
CITATION = re.compile(r"|\(?\d{4}\)?|.+, \d{4}|.+ \(\d{4}\)")
# Who publishes papers and nothing else: a link there is a citation.
PUBLISHERS = (
    "arxiv.org",
    "distill.pub",
    "dl.acm.org",
    "doi.org",
    "ieeexplore.ieee.org",
    "jmlr.org",
    "link.springer.com",
    "nature.com",
    "openaccess.thecvf.com",
    "openreview.net",
    "papers.nips.cc",
    "proceedings.mlr.press",
    "proceedings.neurips.cc",
    "sciencedirect.com",
)


@dataclass(frozen=True)
class Paper:
    key: str
    fields: Mapping[str, str]  # as in the file, without the braces that keep capitals

    @property
    def addresses(self) -> list[str]:
        """Where it can be read; the first is the one that the bibliography links to."""
        doi = [f"https://doi.org/{self.fields['doi']}"] if "doi" in self.fields else []
        return [*doi, *([self.fields["url"]] if "url" in self.fields else [])]

    @property
    def authors(self) -> list[str]:
        """As "Xuebin Qin"; "others" where the file names only the first ones."""
        names = self.fields["author"].split(" and ")
        return [" ".join(reversed(name.split(", "))) for name in names]

    @property
    def names(self) -> str:
        """As "Qin et al.", "Kingma and Ba", "Dice"."""
        families = [name.split(", ")[0] for name in self.fields["author"].split(" and ")]
        return f"{families[0]} et al." if len(families) > 2 else " and ".join(families)

    def cited(self, in_sentence: bool) -> str:
        year = self.fields["year"]
        return f"{self.names} ({year})" if in_sentence else f"{self.names}, {year}"

    @property
    def where(self) -> str:
        """As "Pattern Recognition 106, 107404"."""
        fields = {name: text.replace("--", "–") for name, text in self.fields.items()}
        volume = fields.get("volume", "")
        if "journal" in fields:
            parts = [f"{fields['journal']} {volume}".strip(), fields.get("pages")]
        else:
            series = f"{fields.get('series', '')} {volume}".strip()
            parts = [fields.get("booktitle"), series, fields.get("pages")]
        return ", ".join(part for part in parts if part)


def read(root: Path) -> list[Paper]:
    """All entries of the file, by author and year."""
    text = (root / BIBLIOGRAPHY).read_text(encoding="utf-8")
    found = []
    for key, body in ENTRY.findall(text):
        fields = {name: re.sub("[{}]", "", value) for name, value in FIELD.findall(body)}
        if missing := {"author", "title", "year"} - fields.keys():
            sys.exit(f"{BIBLIOGRAPHY}: {key} has no {' and no '.join(sorted(missing))}.")
        if not fields.keys() & {"doi", "url"}:
            sys.exit(f"{BIBLIOGRAPHY}: {key} has neither a doi nor a url, so nothing can link to it.")
        found.append(Paper(key, fields))
    if len(found) != len(re.findall("^@", text, re.MULTILINE)):
        sys.exit(f"{BIBLIOGRAPHY}: an entry is not written as the others are, a field a line.")
    return sorted(found, key=lambda paper: (paper.names.lower(), paper.fields["year"], paper.key))


def by_address(papers: Sequence[Paper]) -> dict[str, Paper]:
    return {address: paper for paper in papers for address in paper.addresses}


def worded(text: str, papers: Mapping[str, Paper]) -> str:
    """The text with the right words in each citation; papers: by their addresses."""

    def mended(link: re.Match[str]) -> str:
        words, address = link.groups()
        if address not in papers or not CITATION.fullmatch(words):
            return link[0]
        return f"[{papers[address].cited(in_sentence=words.endswith(')'))}]({address})"

    return LINK.sub(mended, text)


def is_paper(address: str) -> bool:
    return urlparse(address).netloc.removeprefix("www.") in PUBLISHERS


def page(papers: Sequence[Paper], cited: Mapping[str, Sequence[str]]) -> str:
    """The bibliography as a list; cited: links to the chapters that cite a paper, by its key."""
    lines = []
    for paper in papers:
        authors = ", ".join("and others" if name == "others" else name for name in paper.authors)
        title = f"[{paper.fields['title']}]({paper.addresses[0]})"
        parts = [f"{authors} ({paper.fields['year']})", title, paper.where]
        if chapters := cited.get(paper.key):
            parts.append(f"Cited in {'chapter' if len(chapters) == 1 else 'chapters'} {', '.join(chapters)}")
        lines.append(f"- {'. '.join(part for part in parts if part)}.")
    return "\n".join(lines)
