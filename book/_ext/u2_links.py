"""On the site, its own address is left out of links: they lead to the pages beside, wherever these lie.

A notebook links to the book's other pages by their address on the site, as Colab and JupyterLab do not have
them (tools/links.py).
"""

from docutils import nodes
from sphinx.util import logging

logger = logging.getLogger(__name__)


def lead_to_the_page_beside(app, doctree, docname):
    home = app.config.html_baseurl
    for link in doctree.findall(nodes.reference):
        address = link.get("refuri", "")
        if not address.startswith(f"{home}book/"):
            continue
        page, hash, anchor = address.removeprefix(home).partition("#")
        name = page.removesuffix(".html")
        if name in app.env.found_docs:
            link["refuri"] = app.builder.get_relative_uri(docname, name) + hash + anchor
            link["internal"] = True
        else:
            logger.warning(f"{address} is no page of the book", location=link)


def setup(app):
    app.connect("doctree-resolved", lead_to_the_page_beside)
    return {"parallel_read_safe": True}
