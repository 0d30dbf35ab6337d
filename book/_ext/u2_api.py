"""The directive `{api} module`: a module's public names, their signatures and docstrings, read as Markdown.

(sphinx.ext.autodoc would read the docstrings as reStructuredText, which the code of this book does not use.)
"""

import importlib
import inspect
import re

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.util.docutils import SphinxDirective


class Api(SphinxDirective):
    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        module = importlib.import_module(self.arguments[0])
        self.env.note_dependency(inspect.getsourcefile(module))
        node = nodes.Element()
        self.state.nested_parse(StringList(describe_module(module), source=self.arguments[0]), 0, node)
        return node.children


def describe_module(module) -> list[str]:
    """The module's docstring and public names, as lines of Markdown."""
    lines = [*docstring(module), "", f"```{{py:currentmodule}} {module.__name__}", "```", ""]
    for name, thing in public_names(module).items():
        if inspect.isclass(thing):
            methods = (
                describe("method", n, m, docstring(m), ":::") for n, m in public_methods(thing).items()
            )
            lines += describe("class", name, thing, sum(methods, docstring(thing)), "::::")
        else:
            lines += describe("function", name, thing, docstring(thing), "::::")
    return lines


def describe(kind: str, name: str, thing, body: list[str], fence: str) -> list[str]:
    return ["", f"{fence}{{py:{kind}}} {name}{signature(thing)}", *body, fence, ""]


def public_names(module) -> dict:
    """What the module lists in `__all__`, else the classes and functions that it defines."""
    if hasattr(module, "__all__"):
        return {name: getattr(module, name) for name in module.__all__ if callable(getattr(module, name))}
    return {
        name: thing
        for name, thing in vars(module).items()
        if not name.startswith("_")
        and (inspect.isclass(thing) or inspect.isroutine(thing))
        and thing.__module__ == module.__name__
    }


def public_methods(cls: type) -> dict:
    """Methods that the class itself defines and explains."""
    return {
        n: m for n, m in vars(cls).items() if not n.startswith("_") and inspect.isfunction(m) and m.__doc__
    }


def signature(thing) -> str:
    """The parameters as they stand in the code: no module before other libraries' types, no addresses."""
    if inspect.isclass(thing) and "__init__" not in vars(thing):
        return "()"
    try:
        found = inspect.signature(thing)
    except (TypeError, ValueError):
        return "()"
    text = str(found.replace(parameters=[p for p in found.parameters.values() if p.name != "self"]))
    text = re.sub(r"<(?:function|class) '?([\w.]+)[^>]*>", r"\1", text)
    return re.sub(r"(?<![\w.])(?!u2learn)(?:[a-z_]\w*\.)+(?=[A-Z])", "", text)


def docstring(thing) -> list[str]:
    """The docstring's own lines, with the exceptions below `Raises:` as a list."""
    lines, raises = [], False
    for line in (inspect.getdoc(thing) or "").splitlines():
        raises = line == "Raises:" or (raises and line.startswith("    "))
        error = re.match(r"    (\w+): (.*)", line) if raises else None
        if line == "Raises:":
            lines += ["Raises:", ""]
        elif error:
            lines.append(f"- `{error[1]}`: {error[2]}")
        else:
            lines.append(line.strip() if raises else line)
    return lines


def setup(app):
    app.add_directive("api", Api)
    return {"parallel_read_safe": True}
