"""A module's public classes and functions as a page: signatures, fields, arguments and errors, from its source."""

import ast
import inspect
from collections.abc import Iterator
from pathlib import Path

REPO = Path(__file__).parents[1]
LINE = 100
"""Characters of a signature on one line."""
SECTIONS = {"Args:": "", "Raises:": "Raises "}
"""Of a docstring, and what stands before each of its items."""

Function = ast.FunctionDef | ast.AsyncFunctionDef


def reference(module: str) -> str:
    """What is public in `module`, in the order of its source; a class with its fields and methods.

    Args:
        module: its dotted name.

    Raises:
        FileNotFoundError: there is no such module here.
    """
    path = REPO.joinpath(*module.split(".")).with_suffix(".py")
    tree = ast.parse(path.read_text(encoding="utf-8"))
    parts = []
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and _public(node.name):
            parts += _class(node)
        elif isinstance(node, Function) and _public(node.name):
            parts += _function(node)
    return "\n".join(["", *parts])


def _public(name: str) -> bool:
    return not name.startswith("_")


def _class(node: ast.ClassDef) -> Iterator[str]:
    yield from (f"### {node.name}", "", *_described(ast.get_docstring(node)))
    if fields := [f"- `{name}`: {about}".removesuffix(": ") for name, about in _fields(node)]:
        yield from (*fields, "")
    for method in node.body:
        if isinstance(method, Function) and (_public(method.name) or method.name == "__init__"):
            yield from _function(method, node.name)


def _fields(node: ast.ClassDef) -> Iterator[tuple[str, str]]:
    """Annotated fields, with the string below each."""
    for field, below in zip(node.body, [*node.body[1:], None], strict=True):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and _public(field.target.id):
            said = below.value.value if isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant) else ""
            name = f"{field.target.id}: {_type(field.annotation)}"
            yield name, " ".join(inspect.cleandoc(str(said)).split())


def _function(node: Function, owner: str = "") -> Iterator[str]:
    name = owner if node.name == "__init__" else f"{owner}.{node.name}".lstrip(".")
    yield from (f"#### {f'{owner}(…)' if node.name == '__init__' else name}", "", "```", _signature(node, name, owner))
    yield from ("```", "", *_described(ast.get_docstring(node)))


def _signature(node: Function, name: str, owner: str) -> str:
    returned = "" if node.returns is None or node.name == "__init__" else f" -> {_type(node.returns)}"
    if any(ast.unparse(each) in ("property", "cached_property") for each in node.decorator_list):
        return f"{name}{returned.replace(' ->', ':')}"
    arguments = list(_arguments(node.args))[1 if owner else 0 :]
    line = f"{name}({', '.join(arguments)}){returned}"
    return (
        line if len(line) <= LINE else "\n".join([f"{name}(", *(f"    {each}," for each in arguments), f"){returned}"])
    )


def _arguments(given: ast.arguments) -> Iterator[str]:
    positional = [*given.posonlyargs, *given.args]
    defaults = [None] * (len(positional) - len(given.defaults)) + list(given.defaults)
    for each, default in zip(positional, defaults, strict=True):
        yield _argument(each, default)
    if given.vararg or given.kwonlyargs:
        yield f"*{_argument(given.vararg) if given.vararg else ''}"
    for each, default in zip(given.kwonlyargs, given.kw_defaults, strict=True):
        yield _argument(each, default)
    if given.kwarg:
        yield f"**{_argument(given.kwarg)}"


def _argument(each: ast.arg, default: ast.expr | None = None) -> str:
    kind = f": {_type(each.annotation)}" if each.annotation else ""
    if default is None:
        return f"{each.arg}{kind}"
    return f"{each.arg}{kind} = {ast.unparse(default)}" if kind else f"{each.arg}={ast.unparse(default)}"


def _type(annotation: ast.expr) -> str:
    """As it reads, names of later classes without their quotes."""
    return ast.unparse(Unquoted().visit(annotation))


class Unquoted(ast.NodeTransformer):
    """Strings in an annotation as the types they name; those of a `Literal` stay strings."""

    def visit_Constant(self, node: ast.Constant) -> ast.expr:
        return ast.parse(node.value, mode="eval").body if isinstance(node.value, str) else node

    def visit_Subscript(self, node: ast.Subscript) -> ast.expr:
        return node if ast.unparse(node.value) == "Literal" else self.generic_visit(node)  # pyright: ignore[reportReturnType]


def _described(docstring: str | None) -> Iterator[str]:
    """A docstring's paragraphs as they are, and its sections as lists."""
    if docstring is None:
        return
    section = None
    items: list[str] = []
    for line in docstring.splitlines():
        if line.strip() in SECTIONS and not line.startswith(" "):
            section = line.strip()
        elif section is None:
            yield line
        elif line.startswith("    ") and not line.startswith("        "):
            name, _, about = line.strip().partition(": ")
            items.append(f"- {SECTIONS[section]}`{name}`: {about}")
        elif line.strip():
            items[-1] += f" {line.strip()}"
    if section is None:
        yield ""
    if items:
        yield from (*items, "")
