"""What a part is made of: the code that its answer uses, read without being run.

A part that asks for a thing to be written refuses the library's version of it. While a function runs, PyTorch
tells which operations it uses (`core.Forbid`), and Python which functions of a package (`watching`); both can
be switched off. So the cells are read as well: from the function on to whatever it uses, and nothing else, so
that an experiment in another cell does no harm.
"""

import ast
import builtins
import functools
import importlib.util
import symtable
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

FROM_TEXT = {"eval", "exec", "compile", "__import__", "globals", "locals", "get_ipython"}
FROM_TEXT |= {"__builtins__", "__loader__", "__spec__"}
# Doors to everything: no part needs one of them, and behind them nothing can be read.
DOORS = (
    *("torch._C", "torch.ops", "torch.jit", "torch.overrides", "torch.utils._python_dispatch"),
    *("torch.utils.cpp_extension", "torch.library", "importlib", "ctypes", "pickle", "marshal", "codecs"),
    *("subprocess", "sys.modules", "builtins", "runpy", "gc", "inspect", "__main__", "tools", "pkgutil"),
    *("sys._getframe", "operator.attrgetter", "operator.methodcaller"),
)
INNER = {
    "__globals__",
    "__subclasses__",
    "__getattribute__",
    "__closure__",
    "__code__",
}  # doors of any object


@dataclass(frozen=True)
class Refusal:
    """What the answer to a part may not use. names: of functions and layers, wherever they come from.

    packages: of which nothing may be used but what is `given`. instead: what to do, for the student.
    """

    instead: str
    names: tuple[str, ...] = ()
    packages: tuple[str, ...] = ("u2learn",)
    given: tuple[str, ...] = ()

    def refuses(self, name: str) -> bool:
        """name: as "torch.nn.functional.conv2d"; for a method of something unknown ".conv2d"."""
        if any(inside(name, package) for package in self.packages):
            return not any(inside(name, given) or inside(given, name) for given in self.given)
        return name.rpartition(".")[2] in self.names or is_door(name)

    def sentence(self, name: str) -> str:
        why = "nobody can read what it calls" if is_door(name) else "it is the library's"
        shown = name.removeprefix("builtins.").lstrip(".")
        return f"your code uses `{shown}`, which is refused here ({why}): {self.instead}"


def is_door(name: str) -> bool:
    first, last = name.partition(".")[0], name.rpartition(".")[2]
    return (
        last in INNER or any(inside(name, door) for door in DOORS) or bool(first and not is_installed(first))
    )


@functools.cache
def is_installed(module: str) -> bool:
    """Whether a module is Python's or a library's, and not a file that somebody wrote beside a notebook."""
    if module in sys.stdlib_module_names or module == __name__.partition(".")[0]:
        return True
    try:
        found = importlib.util.find_spec(module)
    except (ImportError, ValueError):
        return False
    places = [found.origin, *(found.submodule_search_locations or ())] if found else []
    return any("-packages" in str(place) for place in places)


def inside(name: str, package: str) -> bool:
    return name == package or name.startswith(f"{package}.")


def statements(source: str) -> Iterator[ast.stmt]:
    """The statements of a cell as IPython runs it, and of what it hands to a magic, as `%time x = 1`.

    None where they cannot be read, as then they do not run either.
    """
    try:
        body = ast.parse(as_python(source)).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return
    for node in body:
        yield node
        for inner in ast.walk(node):
            match inner:
                case ast.Call(func=ast.Attribute(attr="run_line_magic" | "run_cell_magic"), args=[_, *given]):
                    for code in given:
                        if isinstance(code, ast.Constant) and isinstance(code.value, str):
                            yield from statements(code.value)


def as_python(source: str) -> str:
    """The cell without magics, prompts and whatever else IPython understands and Python does not."""
    try:
        from IPython.core.inputtransformer2 import TransformerManager
    except ImportError:  # then nobody has run any of that
        return source
    try:
        return TransformerManager().transform_cell(source)
    except Exception:  # of several kinds; the cell does not run then
        return source


@dataclass
class Statement:
    """A statement outside of all functions. binds: the names that it makes anew; whole: in every case."""

    node: ast.stmt
    binds: set[str]
    uses: set[str]  # global names, also those inside of functions
    uses_now: set[str]  # those used when the statement is run, not when a function is called
    whole: bool = True


@dataclass
class Cells:
    """The statements of all cells, in order, and where each name of a module comes from."""

    statements: list[Statement] = field(default_factory=list)
    imported: dict[str, str] = field(default_factory=dict)  # "F" -> "torch.nn.functional"
    starred: list[str] = field(default_factory=list)

    @classmethod
    def read(cls, sources: Iterable[str]) -> "Cells":
        found = cls()
        for source in sources:
            for node in statements(source):
                found._add(node, True)
        return found

    def _add(self, node: ast.stmt | ast.ExceptHandler, whole: bool) -> None:
        match node:
            case ast.If() | ast.For() | ast.While() | ast.With() | ast.Try() | ast.ExceptHandler():
                for header in headers(node):
                    self._add(ast.fix_missing_locations(ast.copy_location(header, node)), False)
                for inner in ast.iter_child_nodes(node):
                    if isinstance(inner, (ast.stmt, ast.ExceptHandler)):
                        self._add(inner, False)
                return
            case ast.Expr(value=ast.Call(func=ast.Attribute() as called)) if root(called) in self.imported:
                return  # as torch.manual_seed(0): it makes nothing that an answer uses
            case ast.Import():
                for alias in node.names:
                    first = alias.name.partition(".")[0]
                    self.imported[alias.asname or first] = alias.name if alias.asname else first
                    self.statements.append(Statement(node, {alias.asname or first}, set(), set(), whole))
                return
            case ast.ImportFrom():
                module = "." * node.level + (node.module or "")
                for alias in node.names:
                    if alias.name == "*":
                        self.starred.append(module)
                    else:
                        self.imported[alias.asname or alias.name] = f"{module}.{alias.name}"
                    self.statements.append(Statement(node, {alias.asname or alias.name}, set(), set(), whole))
                return
        try:
            table = symtable.symtable(ast.unparse(node), "cell", "exec")
        except (SyntaxError, ValueError, RecursionError):
            return
        now = {s.get_name() for s in table.get_symbols() if s.is_referenced()}
        whole = whole and is_whole(node)
        self.statements.append(Statement(node, set(targets(node)), global_names(table), now, whole))

    def made_of(self, names: Iterable[str]) -> Iterator[Statement]:
        """The statements that these names are made by, and those that they use, and so on."""
        waiting, known = list(names), set()
        while waiting:
            name = waiting.pop()
            if name in known:
                continue
            known.add(name)
            for statement in reversed(self.statements):
                if name not in statement.binds:
                    continue
                yield statement
                waiting.extend(statement.uses)
                if statement.whole and name not in statement.uses_now:
                    break  # what stood before is forgotten


def headers(node: ast.stmt | ast.ExceptHandler) -> Iterator[ast.stmt]:
    """What the first line of a block makes, as statements: `for x in y` makes x of y."""
    match node:
        case ast.For(target=target, iter=value):
            yield ast.Assign([target], value)
        case ast.With(items=items):
            yield from (ast.Assign([i.optional_vars], i.context_expr) for i in items if i.optional_vars)
        case ast.If(test=test) | ast.While(test=test):
            yield ast.Expr(test)


def targets(node: ast.stmt) -> Iterator[str]:
    """The names that a statement makes or changes, `setattr(x, ...)` and `x.add(...)` among the changes."""
    for inner in ast.walk(node):
        if isinstance(inner, ast.Global):
            yield from inner.names
    match node:
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
            yield name
            return
        case ast.Expr(value=ast.Call(func=ast.Name(id="setattr"), args=[first, *_])):
            yield root(first)
        case ast.Expr(value=ast.Call(func=ast.Attribute(value=value))):
            yield root(value)
    for inner in ast.walk(node):
        if isinstance(inner, (ast.Name, ast.Attribute, ast.Subscript)) and isinstance(inner.ctx, ast.Store):
            yield root(inner)


def is_whole(node: ast.stmt) -> bool:
    """Whether the names are new after it: `x = 1`, and not `x[0] = 1` or `x += 1`."""
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        return not any(isinstance(inner, ast.Global) for inner in ast.walk(node))
    return isinstance(node, (ast.Assign, ast.AnnAssign)) and not any(
        isinstance(inner, (ast.Attribute, ast.Subscript)) and isinstance(inner.ctx, ast.Store)
        for inner in ast.walk(node)
    )


def root(node: ast.expr) -> str:
    """`a` of `a.b[0].c`; "" where it begins with something else."""
    while isinstance(node, (ast.Attribute, ast.Subscript)):
        node = node.value
    return node.id if isinstance(node, ast.Name) else ""


def global_names(table: symtable.SymbolTable) -> set[str]:
    top = table.get_type() == "module"
    found = {s.get_name() for s in table.get_symbols() if s.is_referenced() and (top or s.is_global())}
    return found.union(*map(global_names, table.get_children()))


def used_names(statement: Statement, cells: Cells) -> Iterator[str]:
    """All that a statement reaches for, by its full name, as far as that can be read."""
    inside_it = Cells(imported={n: full for n, full in cells.imported.items() if n in statement.uses})
    for node in ast.walk(statement.node):
        if isinstance(node, (ast.Import, ast.ImportFrom)):  # within a function
            inside_it._add(node, True)
    unknown = statement.uses - inside_it.imported.keys() - set(dir(builtins))
    unknown -= {name for other in cells.statements for name in other.binds}
    yield from (f"{module}.{name}" for module in cells.starred for name in unknown)
    yield from (f"builtins.{name}" for name in statement.uses & FROM_TEXT)
    called = {id(node.func) for node in ast.walk(statement.node) if isinstance(node, ast.Call)}
    for node in ast.walk(statement.node):
        match node:
            case ast.Name(id="getattr") if id(node) not in called:  # under another name
                yield "builtins.getattr"
            case ast.MatchClass(kwd_attrs=names):
                yield from (f".{name}" for name in names)
            case ast.Attribute():
                yield full_name(node, inside_it)
            case ast.Call(func=ast.Name(id="getattr"), args=[owner, name, *_]):
                yield reached(full_name(owner, inside_it), name)
            case ast.Call(func=ast.Name(id="vars"), args=[owner]):
                yield reached(full_name(owner, inside_it), None)
    yield from inside_it.imported.values()


def full_name(node: ast.expr, cells: Cells) -> str:
    """`F.conv2d` -> "torch.nn.functional.conv2d"; `x.unfold` -> ".unfold"; of one's own `self.grad` -> ""."""
    match node:
        case ast.Name(id=name):
            return cells.imported.get(name, "")
        case ast.Attribute(value=ast.Name(id="self")):
            return ""
        case ast.Attribute(value=value, attr=name):
            owner = full_name(value, cells)
            if name == "__dict__":
                return reached(owner, None)
            return f"{owner}.{name}"
    return ""


def reached(owner: str, name: ast.expr | None) -> str:
    """What `getattr(owner, name)` gives. In a module a name that is computed might be any."""
    if isinstance(name, ast.Constant) and isinstance(name.value, str):
        return f"{owner}.{name.value}"
    return "builtins.getattr" if owner.strip(".") else ""


def refused(refusal: Refusal, names: Sequence[str], sources: Iterable[str]) -> str:
    """What is said about the first refused thing that `names` are made of; "" if there is none."""
    cells = Cells.read(sources)
    bound = {name for statement in cells.statements for name in statement.binds}
    used = [f"{module}.{name}" for name in names if name not in bound for module in cells.starred]
    for statement in cells.made_of(names):
        used += used_names(statement, cells)
    return next((refusal.sentence(name) for name in used if name.strip(".") and refusal.refuses(name)), "")
