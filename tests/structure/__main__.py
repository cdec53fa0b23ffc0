"""`python -m tests.structure`: the structure of the package against `structure.toml`, for `make lint`.

Checked are the number of modules in each package, that the docstring of each package names all that is in it, that no
two classes share a name, that no imports go in a circle among files or among the children of a package, and that each
look-up of the table leads to a file that holds its answer.
"""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parents[2]
PACKAGE: Final = "maildefer"
DATA: Final = ROOT / "tests" / "structure" / "structure.toml"


def modules(root: Path = ROOT, left_out: tuple[str, ...] = ()) -> dict[str, Path]:
    """All modules below the package by dotted name; a package stands for its `__init__`."""
    found = {}
    for path in sorted((root / PACKAGE).rglob("*.py")):
        name = ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__")
        if not any(name == one or name.startswith(f"{one}.") for one in left_out):
            found[name] = path
    return found


def packages(files: Mapping[str, Path]) -> list[str]:
    return [name for name, path in files.items() if path.name == "__init__.py"]


def children(package: str, files: Mapping[str, Path]) -> list[str]:
    """Names of the modules and packages directly in a package."""
    start = len(package) + 1
    return [name[start:] for name in files if name.startswith(f"{package}.") and "." not in name[start:]]


def crowded(files: Mapping[str, Path], limit: int, excepted: list[str]) -> Iterator[str]:
    for package in packages(files):
        held = [one for one in children(package, files) if files[f"{package}.{one}"].name != "__init__.py"]
        if len(held) > limit and package not in excepted:
            yield f"{package} has {len(held)} modules, and {limit} are the limit: {', '.join(held)}"


def unmapped(files: Mapping[str, Path]) -> Iterator[str]:
    for package in packages(files):
        if package == PACKAGE:
            continue
        docstring = ast.get_docstring(ast.parse(files[package].read_text())) or ""
        words = set(re.findall(r"\w+", docstring))
        for child in children(package, files):
            if child not in words and not child.startswith("_"):
                yield f"the docstring of {package} does not name {child}"


def shared_names(files: Mapping[str, Path]) -> Iterator[str]:
    homes: dict[str, list[str]] = {}
    for name, path in files.items():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef):
                homes.setdefault(node.name, []).append(name)
    for word, modules_with_it in homes.items():
        if len(modules_with_it) > 1:
            yield f"several classes are named {word}: in {', '.join(modules_with_it)}"


def imports(files: Mapping[str, Path]) -> dict[str, set[str]]:
    """Which modules each module imports, anywhere in its code."""
    found: dict[str, set[str]] = {name: set() for name in files}
    for name, path in files.items():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == PACKAGE:
                for alias in node.names:
                    whole = f"{node.module}.{alias.name}"
                    found[name].add(whole if whole in files else node.module)
            elif isinstance(node, ast.Import):
                found[name].update(alias.name for alias in node.names if alias.name in files)
    return found


def circles(graph: Mapping[str, set[str]]) -> Iterator[list[str]]:
    """The groups of nodes that reach each other (Tarjan's strongly connected components)."""
    number: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(node: str) -> None:
        number[node] = low[node] = len(number)
        stack.append(node)
        for other in sorted(graph.get(node, ())):
            if other not in number:
                visit(other)
                low[node] = min(low[node], low[other])
            elif other in stack:
                low[node] = min(low[node], number[other])
        if low[node] == number[node]:
            group = stack[stack.index(node) :]
            del stack[-len(group) :]
            if len(group) > 1:
                found.append(sorted(group))

    for node in graph:
        if node not in number:
            visit(node)
    yield from found


def circular(files: Mapping[str, Path]) -> Iterator[str]:
    graph = imports(files)
    for group in circles(graph):
        yield f"files import each other in a circle: {', '.join(group)}"
    for package in packages(files):
        start, parts = f"{package}.", package.count(".") + 2
        among: dict[str, set[str]] = {}
        for one, others in graph.items():
            if one.startswith(start):
                child = ".".join(one.split(".")[:parts])
                reached = {".".join(other.split(".")[:parts]) for other in others if other.startswith(start)}
                among.setdefault(child, set()).update(reached - {child})
        for group in circles(among):
            yield f"children of {package} import each other in a circle: {', '.join(group)}"


def astray(lookups: list[dict[str, str]], root: Path = ROOT) -> Iterator[str]:
    for lookup in lookups:
        path = root / lookup["file"]
        if not path.is_file():
            yield f"{lookup['question']}: there is no {lookup['file']}"
        elif lookup["holds"] not in path.read_text():
            yield f"{lookup['question']}: {lookup['file']} does not hold {lookup['holds']!r}"


def problems(data: Mapping[str, Any], root: Path = ROOT) -> Iterator[str]:
    files = modules(root, tuple(data["left_out"]))
    yield from crowded(files, data["modules_in_a_package"], data["crowded"])
    yield from unmapped(files)
    yield from shared_names(files)
    yield from circular(files)
    yield from astray(data["lookups"], root)


def main() -> None:
    found = list(problems(tomllib.loads(DATA.read_text())))
    for problem in found:
        print(f"structure: {problem}", file=sys.stderr)
    sys.exit(1 if found else 0)


if __name__ == "__main__":
    main()
