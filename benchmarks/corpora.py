"""Real mail from eight places: what projects that read mail ship for their own tests.

The source distributions of flufl.bounce, mail-parser, talon, mailman and dkimpy (by pip), Debian's sources of rspamd
and bogofilter (by apt-get, as any user), and the data of the interpreter's own `test.test_email`. All is fetched once,
into `.cache/corpora`, and is no part of this project. `python -m benchmarks.corpora` fetches and counts it.
"""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks import corpus
from benchmarks.corpus import OUTLOOK, CorpusMissing, once

CACHE: Final = Path(__file__).resolve().parent.parent / ".cache" / "corpora"
LARGEST_BYTES: Final = 4 << 20
_FROM_LINE: Final = re.compile(rb"(?:\A|\n\n)From [^\n]*\d{4}[^\n]*\n")


@dataclass(frozen=True, slots=True, kw_only=True)
class Corpus:
    """Where messages lie in what `fetch` gives: globs below that folder. `least`: fewer are a fault of the globs."""

    name: str
    fetch: Callable[[], Path]
    globs: tuple[str, ...]
    least: int

    def messages(self) -> Iterator[tuple[str, bytes]]:
        """Name and bytes of each message, in order of name; fetched first if need be. Raises CorpusMissing."""
        home = self.fetch()
        for path in sorted({path for glob in self.globs for path in home.glob(glob) if path.is_file()}):
            data = path.read_bytes()
            if len(data) > LARGEST_BYTES or data.startswith(OUTLOOK):
                continue
            name = str(path.relative_to(home))
            yield from ((f"{name}#{number}", each) for number, each in enumerate(divided(data)))


def divided(data: bytes) -> list[bytes]:
    """The messages of an mbox; a file of one message as it is."""
    starts = list(_FROM_LINE.finditer(data))
    if len(starts) < 2 or starts[0].start() != 0:
        return [data]
    ends = [*(found.start() + 1 for found in starts[1:]), len(data)]
    return [data[found.end() : end] for found, end in zip(starts, ends, strict=True)]


def _by_pip(source: str) -> Callable[[], Path]:
    return lambda: corpus.fetch(CACHE, (source,))


def _by_apt(package: str) -> Callable[[], Path]:
    return lambda: once(CACHE / package, lambda draft: _apt_source(package, draft))


def _of_the_interpreter() -> Path:
    found = importlib.util.find_spec("test")
    folders = (
        [Path(place, "test_email") for place in (found.submodule_search_locations or ())] if found else []
    )
    for folder in folders:
        if (folder / "data").is_dir():
            return folder
    raise CorpusMissing(f"{sys.executable} has no test.test_email: on Debian, install libpython3-testsuite")


CORPORA: Final = (
    Corpus(
        name="flufl.bounce", fetch=_by_pip("flufl.bounce==6.0.0"), globs=("*/tests/data/*.txt",), least=117
    ),
    Corpus(name="mail-parser", fetch=_by_pip("mail-parser==4.8.0"), globs=("*/tests/mails/*",), least=22),
    Corpus(
        name="talon",
        fetch=_by_pip("talon==1.4.4"),
        globs=("*/tests/fixtures/**/*.eml", "*/tests/fixtures/signature/emails/P/*"),
        least=14,
    ),
    Corpus(
        name="mailman", fetch=_by_pip("mailman==3.3.10"), globs=("*/src/mailman/**/tests/**/*.eml",), least=13
    ),
    Corpus(name="dkimpy", fetch=_by_pip("dkimpy==1.1.8"), globs=("*/dkim/tests/data/*m*[egx]*",), least=12),
    Corpus(name="rspamd", fetch=_by_apt("rspamd"), globs=("*/test/functional/messages/**/*",), least=70),
    Corpus(name="bogofilter", fetch=_by_apt("bogofilter"), globs=("*/src/tests/inputs/*",), least=20),
    Corpus(name="test_email", fetch=_of_the_interpreter, globs=("data/msg_*.txt",), least=40),
)


def _apt_source(package: str, draft: Path) -> None:
    """Unpack the source package of this machine's own Debian release, without a change to its package lists."""
    for tool in ("apt-get", "tar", "xz"):
        if shutil.which(tool) is None:
            raise CorpusMissing(f"there is no {tool} for Debian's source of {package}")
    lists, state = draft / "sources.list", draft / "state"
    (state / "lists" / "partial").mkdir(parents=True)
    (state / "cache" / "archives" / "partial").mkdir(parents=True)
    lists.write_text(_source_lists())
    options = [f"Dir::Etc::sourcelist={lists}", "Dir::Etc::sourceparts=-", f"Dir::State::lists={state}/lists"]
    options += [f"Dir::Cache={state}/cache", "APT::Sandbox::User=root"]
    apt = ["apt-get", *(word for option in options for word in ("-o", option))]
    for command in (["update"], ["source", "--download-only", package]):
        _run([*apt, *command], draft, f"apt-get cannot fetch the source of {package}")
    for archive in draft.glob("*.orig.tar.*"):
        _run(["tar", "xf", str(archive)], draft, f"{archive.name} cannot be unpacked")
    for waste in (state, *draft.glob(f"{package}_*")):
        shutil.rmtree(waste) if waste.is_dir() else waste.unlink()


def _source_lists() -> str:
    """Lines for the source packages beside the packages that this machine takes."""
    told = "$(SIGNED_BY)|$(REPO_URI) $(RELEASE) $(COMPONENT)"
    done = _run(
        ["apt-get", "indextargets", "--format", told, "Identifier: Packages"], Path("/"), "apt-get fails"
    )
    lines = []
    for line in sorted(set(done.splitlines())):
        signed_by, _, place = line.partition("|")
        if "$(" not in place:
            lines.append(
                f"deb-src {f'[signed-by={signed_by}] ' if '$(' not in signed_by and signed_by else ''}{place}\n"
            )
    return "".join(lines)


def _run(command: list[str], cwd: Path, what: str) -> str:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise CorpusMissing(f"{what}:\n{done.stderr.strip()}")
    return done.stdout


if __name__ == "__main__":
    for each in CORPORA:
        try:
            found = list(each.messages())
            print(f"{each.name}: {len(found)} messages, {sum(len(data) for _, data in found):,} bytes")
        except CorpusMissing as why:
            print(f"{each.name}: {why}")
