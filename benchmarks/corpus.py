"""Real mail: what the source distributions of flufl.bounce and mail-parser ship for their own tests.

139 messages: 117 bounces of twenty kinds, and 22 other mails (spam, newsletters, deep multiparts, wrong
charsets, malformed on purpose). They are fetched once, by pip, into `.cache/corpus`, and are no part of this project.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Final

CACHE: Final = Path(__file__).resolve().parent.parent / ".cache" / "corpus"
MESSAGES: Final = 139  # in the versions below

# Each distribution, and where its messages lie in it.
SOURCES: Final = {
    "flufl.bounce==6.0.0": "flufl_bounce-*/tests/data/*.txt",
    "mail-parser==4.8.0": "mail_parser-*/tests/mails/*",
}
OUTLOOK: Final = bytes.fromhex("d0cf11e0a1b11ae1")  # one is a .msg file, which no mail server ever sends


class CorpusMissing(Exception):
    """pip could not download the source distributions."""


def messages(cache: Path = CACHE) -> Iterator[tuple[str, bytes]]:
    """Name and bytes of each message, in order of name; fetched first if need be. Raises CorpusMissing."""
    home = fetch(cache)
    for pattern in SOURCES.values():
        for path in sorted(home.glob(pattern)):
            data = path.read_bytes()
            if not data.startswith(OUTLOOK):
                yield path.stem, data


def fetch(cache: Path = CACHE, sources: Iterable[str] = SOURCES) -> Path:
    """The folder with the unpacked distributions. Any number of processes may ask at the same time."""
    sources = tuple(sources)
    return once(cache / "-".join(source.replace("==", "-") for source in sources), partial(_unpack, sources))


def once(home: Path, make: Callable[[Path], None]) -> Path:
    """Have `home` made in one step, by what fills a folder, whoever else does so at the same time."""
    if home.is_dir():
        return home
    home.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(dir=home.parent))
    try:
        make(draft)
        try:
            os.rename(draft, home)
        except OSError:  # another process was first, with the same files
            if not home.is_dir():
                raise
        return home
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _unpack(sources: tuple[str, ...], draft: Path) -> None:
    for archive in _download(draft, sources):
        with tarfile.open(archive) as tar:
            # The filter came with Python 3.11.4, and Debian 12 has 3.11.2; pip's archives need none.
            tar.extractall(draft, **({"filter": "data"} if hasattr(tarfile, "data_filter") else {}))  # type: ignore[arg-type]
        archive.unlink()


def _download(folder: Path, sources: tuple[str, ...]) -> list[Path]:
    # --no-binary with the names: with `:all:`, pip would build its build tools from source, too.
    names = ",".join(source.partition("==")[0] for source in sources)
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    done = subprocess.run(
        [*pip, "--no-binary", names, "--dest", str(folder), *sources],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise CorpusMissing(f"pip cannot download {', '.join(sources)}:\n{done.stderr.strip()}")
    return sorted(folder.glob("*.tar.gz"))


if __name__ == "__main__":
    found = list(messages())
    print(f"{len(found)} messages, {sum(len(data) for _, data in found):,} bytes, in {fetch()}")
