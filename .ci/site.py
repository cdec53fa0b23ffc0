#!/usr/bin/env python3
"""Build the site of the documents, build/site, as mkdocs.yml says; and for MkDocs what that file can't say.

What is written for those who read the files stays as it is: pages link to files beside docs/, and docs/README.md lists
all pages. The site gets the files as pages of its own, and its navigation from the list.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
ABOUT = "About"  # the part of the navigation that has what lies beside docs/
BESIDE = {
    "README.md": "readme.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "reporting.md",
    "LICENSE": "license.txt",
    "conf/deploy/Containerfile": "deploy/Containerfile",
    "conf/deploy/alerts.yml": "deploy/alerts.yml",
}
_ROW = re.compile(r"^\| \[(?P<title>.+?)\]\((?P<page>[\w./-]+)\) \|", re.MULTILINE)
_LINK = re.compile(r"\]\((?P<target>[^)#:\s]+)(?=[)#])")


def on_config(config: Any) -> Any:
    """The navigation is the index: its headings, and the pages in its tables."""
    index = (ROOT / "docs/README.md").read_text()
    config["nav"] = [{"Documents": "README.md"}]
    for part in index.split("\n## ")[1:]:
        pages: list[Any] = [{found["title"]: found["page"]} for found in _ROW.finditer(part)]
        if "decisions/README.md" in (page for each in pages for page in each.values()):
            decisions = sorted(path.name for path in (ROOT / "docs/decisions").glob("0*.md"))
            pages = [each for each in pages if "decisions/README.md" not in each.values()]
            pages.append({"Decisions": ["decisions/README.md", *(f"decisions/{name}" for name in decisions)]})
        config["nav"].append({part.partition("\n")[0]: pages})
    config["nav"].append({ABOUT: [page for page in BESIDE.values() if page.endswith(".md")]})
    return config


def on_files(files: Any, *, config: Any) -> Any:
    from mkdocs.structure.files import File

    for source, page in BESIDE.items():
        if (ROOT / source).exists():
            files.append(File.generated(config, page, content=_linked((ROOT / source).read_text(), "")))
    return files


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    return markdown if page.file.src_uri in BESIDE.values() else _linked(markdown, page.file.src_uri)


def _linked(text: str, page: str) -> str:
    """With links to files of the repository as links to pages of the site."""
    base = Path("docs", page).parent if page else Path()
    to_docs = "../" * (len(Path(page).parts) - 1)

    def link(found: re.Match[str]) -> str:
        target = _normal(base / found["target"])
        if target in BESIDE:
            return f"]({to_docs}{BESIDE[target]}"
        return f"]({target.removeprefix('docs/')}" if not page else found[0]

    return _LINK.sub(link, text)


def _normal(path: Path) -> str:
    parts: list[str] = []
    for part in path.parts:
        parts = parts[:-1] if part == ".." else [*parts, part]
    return "/".join(parts)


if __name__ == "__main__":
    build = [sys.executable, "-m", "mkdocs", "build", *sys.argv[1:]]
    sys.exit(subprocess.run(build, cwd=ROOT, env=os.environ | {"NO_MKDOCS_2_WARNING": "1"}).returncode)
