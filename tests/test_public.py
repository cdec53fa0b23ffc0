"""What is public: each public module says so by `__all__`, and `maildefer/__init__` by its first page."""

from __future__ import annotations

import ast
import inspect
import re
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import maildefer

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "maildefer"
FIRST_PAGE = maildefer.__doc__ or ""
PUBLIC = re.findall(r"^    (\w+) {2,}\S", FIRST_PAGE.partition("Private:")[0], re.MULTILINE)
PAGES = [
    ROOT / "README.md",
    *(
        ROOT / "docs" / f"{name}.md"
        for name in ("delivery", "from-salmon", "handlers", "operating", "tutorial")
    ),
]


def public(name: str) -> ModuleType:
    return import_module(f"maildefer.{name}")


def value_of(module: ModuleType, name: str) -> Any:
    """The attribute, or the module of that name in the package of ready handlers."""
    return import_module(f"{module.__name__}.{name}") if "__path__" in vars(module) else getattr(module, name)


def exports(module: ModuleType) -> list[str]:
    return list(module.__all__)


NAMES = [(module, name) for module in PUBLIC for name in exports(public(module))]


def imports(code: str) -> set[tuple[str, str]]:
    """Each name that the code imports from a module of the package: the module below `maildefer`, and the name."""
    found = set()
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "maildefer":
            module = (node.module or "").partition(".")[2]
            found |= {(module, alias.name) for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {
                (alias.name.partition(".")[2], "")
                for alias in node.names
                if alias.name.partition(".")[0] == "maildefer"
            }
    return found


def is_public(module: str, name: str) -> bool:
    if not module:
        return name in (*PUBLIC, *maildefer.__all__, "")
    if module.startswith("handlers."):  # a package of modules, each with a START
        return module.partition(".")[2] in exports(public("handlers")) and name in ("START", "")
    return module in PUBLIC and (not name or name in exports(public(module)))


def test_the_first_page_names_all_that_the_package_holds() -> None:
    held = {path.stem if path.suffix else path.name for path in PACKAGE.iterdir() if path.name[0] not in "._"}
    words = set(re.findall(r"\w+", FIRST_PAGE))
    assert {name for name in held if name != "py"} - words == set()
    assert len(PUBLIC) > 15


@pytest.mark.parametrize("name", PUBLIC)
def test_a_public_module_has_a_list_of_its_names_each_once(name: str) -> None:
    listed = exports(public(name))
    assert listed
    assert sorted(set(listed)) == sorted(listed)


@pytest.mark.parametrize(("module", "name"), NAMES)
def test_a_public_name_exists_and_is_documented(module: str, name: str) -> None:
    found = public(module)
    value = value_of(found, name)
    if inspect.isclass(value) or inspect.isroutine(value) or inspect.ismodule(value):
        assert inspect.getdoc(value)
    else:  # a constant or an object, which has none of its own
        assert re.search(rf"`{name}\b", found.__doc__ or "")


@pytest.mark.parametrize(("module", "name"), NAMES)
def test_the_module_says_where_a_name_comes_from_that_it_does_not_define(module: str, name: str) -> None:
    found = public(module)
    home = getattr(value_of(found, name), "__module__", "") or ""
    if home.partition(".")[0] != "maildefer" or home == found.__name__:
        return
    assert re.search(rf"`{re.escape(home)}`", found.__doc__ or ""), home


@pytest.mark.parametrize("name", PUBLIC)
def test_no_public_function_or_class_of_a_public_module_is_left_out_of_its_list(name: str) -> None:
    found = public(name)
    assert found.__file__ is not None
    tree = ast.parse(Path(found.__file__).read_text())
    defined = {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    left_out = {one for one in defined if not one.startswith("_")} - set(exports(found))
    assert left_out == set(INTERNAL.get(name, ()))


INTERNAL = {  # what other modules of the package use, and programs should not
    "logs": ("EventHandler", "adopt", "configure", "load", "warm_up"),
}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_a_document_imports_or_names_is_public(page: Path) -> None:
    text = page.read_text()
    used = set()
    for code in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
        used |= imports(code)
    prose = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    used |= set(re.findall(r"maildefer\.([a-z_]+)\.(\w+)", prose))
    assert {one for one in used if not is_public(*one)} == set()


def test_what_a_new_project_imports_is_public() -> None:
    used: set[tuple[str, str]] = set()
    for folder in ("conf", "tests", "workers"):
        for path in (PACKAGE / "skeleton" / folder).resolve().rglob("*.py"):
            used |= imports(path.read_text())
    assert len(used) > 5
    assert {one for one in used if not is_public(*one)} == set()


def test_what_the_package_itself_offers_is_what_its_modules_offer() -> None:
    for name in maildefer.__all__:
        assert name == "__version__" or any(name in exports(public(module)) for module in PUBLIC), name
