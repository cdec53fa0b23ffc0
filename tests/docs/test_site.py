"""The site of the documents: `make site`."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
FETCHED = re.compile(
    r"<(?:script|link|img|iframe|source|style)\b[^>]*(?:src|href)=[\"']?(?:https?:)?//[^>]*>"
)


@pytest.mark.slow
def test_the_site_has_every_document_sound_links_and_nothing_from_elsewhere(tmp_path: Path) -> None:
    """MkDocs is strict, unless it is quiet: a link that leads nowhere, or a page without a place, ends it."""
    built = subprocess.run(
        [sys.executable, ".ci/site.py", "--site-dir", str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert built.returncode == 0, built.stdout + built.stderr
    pages = {path.relative_to(tmp_path) for path in tmp_path.rglob("*.html")}
    documents = {path.relative_to(ROOT / "docs") for path in (ROOT / "docs").rglob("*.md")}
    names = {Path(str(path).replace("README.md", "index.md")).with_suffix(".html") for path in documents}
    assert names - pages == set()
    for page in pages:
        text = (tmp_path / page).read_text()
        assert FETCHED.findall(text.replace('<link rel="canonical"', "")) == [], page
    for style in tmp_path.rglob("*.css"):
        assert "url(http" not in style.read_text(), style
