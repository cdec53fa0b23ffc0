"""What the package may not do by a path, since somebody may have put a link there: recursion, modes, owners, creation.

Whoever adds a line here says why nobody else may write to that folder.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

import pytest

from tests.support.front_end import ROOT

PACKAGE = ROOT / "maildefer"

RECURSION = {  # what removes, moves or lists whole trees
    "shutil": {"rmtree", "move", "copytree", "chown", "copyfile", "copy", "copy2"},
    "os": {
        "walk",
        "fwalk",
        "removedirs",
        "renames",
        "chmod",
        "chown",
        "lchown",
        "truncate",
        "mkfifo",
        "mknod",
    },
    "glob": {"glob", "iglob"},
    "tempfile": {"mktemp"},
}
METHODS = {"rmtree", "rglob", "glob", "chmod", "write_text", "write_bytes"}  # of a Path
ALLOWED = {
    "handling/project/test_store.py": {
        "shutil.rmtree"
    },  # the tests' store: made by mkdtemp, so nobody else may write to it
    "maildir/rights/recording.py": {
        "os.chmod",
        "os.chown",
    },  # /proc/self/fd/N: what was opened without a link
    "host/runtime_dir.py": {"os.chmod"},  # a directory of our own, in which nobody else may write
}
MADE = {  # where files are made without O_EXCL or O_NOFOLLOW: logs, whose path may well be that of a link or a FIFO,
    "cli/commands/man.py",  # and manual pages, in a folder that is given
    "events.py",
    "utils.py",
    "host/daemonize.py",
}


def modules() -> Iterator[tuple[str, ast.Module]]:
    for path in sorted(PACKAGE.rglob("*.py")):
        name = str(path.relative_to(PACKAGE))
        if not name.startswith("skeleton/"):
            yield name, ast.parse(path.read_text())


def by_path(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            module = node.value.id if isinstance(node.value, ast.Name) else ""
            if node.attr in RECURSION.get(module, ()):
                yield f"{module}.{node.attr}"
            elif module not in RECURSION and node.attr in METHODS and module != "ast":
                yield f".{node.attr}"
        elif isinstance(node, ast.ImportFrom) and node.module in RECURSION:
            yield from (
                f"{node.module}.{name.name}" for name in node.names if name.name in RECURSION[node.module]
            )


@pytest.mark.slow
def test_nothing_is_removed_moved_or_given_away_by_recursion_or_by_a_path() -> None:
    found = {name: set(by_path(tree)) - ALLOWED.get(name, set()) for name, tree in modules()}
    assert {name: calls for name, calls in found.items() if calls} == {}


def test_each_exception_is_still_needed() -> None:
    for name, calls in ALLOWED.items():
        assert set(by_path(ast.parse((PACKAGE / name).read_text()))) >= calls, name


def flags(node: ast.expr) -> set[str]:
    return {
        inner.attr for inner in ast.walk(node) if isinstance(inner, ast.Attribute) and inner.attr[:2] == "O_"
    }


@pytest.mark.slow
def test_files_are_made_where_no_link_leads() -> None:
    """By O_EXCL or O_NOFOLLOW, and by `open` in no mode that writes."""
    found = []
    for name, tree in modules():
        inner = {
            id(side)
            for node in ast.walk(tree)
            if isinstance(node, ast.BinOp)
            for side in (node.left, node.right)
        }
        for node in ast.walk(tree):
            if isinstance(node, ast.BinOp) and id(node) not in inner and "O_CREAT" in (said := flags(node)):
                if not said & {"O_EXCL", "O_NOFOLLOW"} and "durable.THERE" not in ast.unparse(node):
                    found.append(f"{name}: {ast.unparse(node)}")
            elif isinstance(node, ast.Call) and ast.unparse(node.func) == "open" and len(node.args) > 1:
                mode = ast.unparse(node.args[1])
                if set(mode) & set("wa") and not ast.unparse(node.args[0]).startswith(
                    ("'/proc/", "descriptor")
                ):
                    found.append(f"{name}: {ast.unparse(node)}")
    assert [each for each in found if each.partition(":")[0] not in MADE] == []
