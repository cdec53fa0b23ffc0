"""Files that a page of the documents has its reader write: each block says in its first line which."""

from __future__ import annotations

import re
from pathlib import Path


def blocks_of(page: Path) -> list[tuple[str, str]]:
    """The kind and the text of each fenced block of a page, in their order."""
    return re.findall(r"^```(\w+)\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)


def is_file(block: str) -> bool:
    return re.match(r"# [\w/]+\.py(,|\n)", block) is not None


def name_of(block: str) -> str:
    """The file that the first line names."""
    return block.partition("\n")[0].removeprefix("# ").partition(",")[0]


def write_block(project: Path, block: str) -> Path:
    """Write what a block holds to the file of its first line, `# conf/settings.py, at its end` for what is added."""
    first, _, rest = block.partition("\n")
    name, _, where = first.removeprefix("# ").partition(", ")
    path = project / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"{path.read_text()}\n{rest}" if where == "at its end" else block)
    return path
