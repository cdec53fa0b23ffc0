"""The changes: of each comparison, number, condition and statement of a module one or two."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass

_COMPARISONS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
_OPERATORS: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.FloorDiv,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
}
# What is only told to people: other tests hold events against their table.
_TOLD = {"emit", "set_title", "print_exc", "note_deprecation"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One of them, by what it is and not by its line, so that it is known again after others were edited."""

    path: str
    function: str  # in which it stands, with its class; empty in the module itself
    before: str
    after: str
    nth: int  # of those in this function that are the same otherwise
    line: int
    start: int
    end: int

    @property
    def identity(self) -> tuple[str, str, str, str, int]:
        return self.path, self.function, self.before, self.after, self.nth

    def made(self, source: bytes) -> bytes:
        return source[: self.start] + self.after.encode() + source[self.end :]

    def __str__(self) -> str:
        where = f"{self.path}:{self.line}" + (f" {self.function}" if self.function else "")
        return f"{where}: {self.before}  ->  {self.after}"


def changes(path: str, source: bytes) -> list[Change]:
    """All that can be made to a module, in the order of its lines."""
    starts = [0]
    for line in source.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    found: list[Change] = []
    seen: dict[tuple[str, str, str], int] = {}
    for node, function in _walk(ast.parse(source), ""):
        for text in _changed(node):
            assert node.end_lineno is not None
            assert node.end_col_offset is not None
            start = starts[node.lineno - 1] + node.col_offset
            end = starts[node.end_lineno - 1] + node.end_col_offset
            before = " ".join(source[start:end].decode().split())
            kind = (function, before, text)
            seen[kind] = nth = seen.get(kind, 0) + 1
            found.append(
                Change(
                    path=path,
                    function=function,
                    before=before,
                    after=text,
                    nth=nth,
                    line=node.lineno,
                    start=start,
                    end=end,
                )
            )
    return sorted(found, key=lambda change: (change.start, change.end, change.after))


def _walk(node: ast.AST, function: str) -> Iterator[tuple[ast.expr | ast.stmt, str]]:
    """Not annotations, decorators and text, nor what only a type checker or a person reads."""
    for name, value in ast.iter_fields(node):
        if name in ("annotation", "returns", "decorator_list", "type_params"):
            continue
        for child in value if isinstance(value, list) else [value]:
            if not isinstance(child, ast.AST) or _is_for_nobody(child):
                continue
            inner = function
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                inner = f"{function}.{child.name}".lstrip(".")
            elif isinstance(child, ast.expr | ast.stmt):
                yield child, function
            if not isinstance(child, ast.JoinedStr):
                yield from _walk(child, inner)


def _is_for_nobody(node: ast.AST) -> bool:
    match node:
        case ast.Assert() | ast.If(test=ast.Name(id="TYPE_CHECKING")):
            return True
        case ast.Expr(value=ast.Call(func=ast.Attribute(attr=name) | ast.Name(id=name))):
            return name in _TOLD
    return False


def _changed(node: ast.expr | ast.stmt) -> Iterator[str]:
    match node:
        case ast.Compare(ops=[op]) if type(op) in _COMPARISONS:
            yield _text(ast.Compare(node.left, [_COMPARISONS[type(op)]()], node.comparators))
        case ast.BoolOp():
            other = ast.Or() if isinstance(node.op, ast.And) else ast.And()
            yield _text(ast.BoolOp(other, node.values))
        case ast.UnaryOp(op=ast.Not()):
            yield _text(node.operand)
        case ast.BinOp() if type(node.op) in _OPERATORS:
            yield _text(ast.BinOp(node.left, _OPERATORS[type(node.op)](), node.right))
        case ast.Constant(value=bool() as value):
            yield str(not value)
        case ast.Constant(value=int() | float() as value):
            yield repr(value + 1)
        case ast.Expr(value=ast.Call()):
            yield "pass"
        case ast.AugAssign():
            yield f"{ast.unparse(node.target)} = {ast.unparse(node.value)}"
        case ast.Raise():
            yield "pass"
        case ast.Return(value=ast.expr() as value) if not isinstance(value, ast.Constant):
            yield "return None"
        case ast.Continue():
            yield "break"
        case ast.Break():
            yield "continue"


def _text(node: ast.expr) -> str:
    return f"({ast.unparse(node)})"
