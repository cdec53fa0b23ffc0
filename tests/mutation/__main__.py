"""`python -m tests.mutation`: see the package. Exits with 1 where a change survives that is not accepted."""

from __future__ import annotations

import argparse
import importlib
import os
import random
import shutil
import signal
import sys
import time
import tomllib
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from tests.mutation.changes import Change, changes

ROOT = Path(__file__).resolve().parents[2]
PLACE = ROOT / ".cache" / "mutation"
_LEFT_OUT = (".git", ".venv", ".cache", "__pycache__", ".mypy_cache", ".ruff_cache", "run")
_OPTIONS = [
    "-q",
    "-x",
    "--no-header",
    "--tb=no",
    "-p",
    "no:randomly",
    "-p",
    "no:cacheprovider",
    "-p",
    "no:xdist",
]
_FAST = "not slow and not lifecycle and not mount"
# Imported once, before the forks. Nothing of ours: each child imports that from its own tree.
_AHEAD = ("pytest", "asyncio", "json", "email.message", "jinja2", "structlog")


def main() -> int:
    given = _arguments()
    plan = _plan()
    accepted = {_identity(each): each["reason"] for each in _accepted()}
    found = [each for path in _files(plan, given.only) for each in changes(path, (ROOT / path).read_bytes())]
    chosen = random.Random(given.seed).sample(found, len(found))[: given.mutants]
    if given.list:
        print(*sorted(map(str, chosen)), sep="\n")
        return 0
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that nothing is left behind
    for name in _AHEAD:
        importlib.import_module(name)
    runs = Runs(_copied(), given.limit)
    until, survivors, tried, spared = time.monotonic() + given.seconds, 0, 0, 0
    try:
        for change in chosen:
            if time.monotonic() > until:
                break
            if change.identity in accepted:
                spared += 1
                continue
            tried += 1
            if not runs.catch(change, _tests(plan, change.path)):
                survivors += 1
                print(f"survives: {change}", flush=True)
    finally:
        shutil.rmtree(runs.tree)
    print(
        f"seed {given.seed}: {tried} of {len(found)} tried, {survivors} survive, {runs.endless} had no end in time; "
        f"{spared} accepted ones left out"
    )
    return 1 if survivors else 0


class Runs:
    """Of stages of tests in a copy of the project."""

    def __init__(self, tree: Path, least_seconds: float) -> None:
        self.tree = tree
        self.endless = 0
        self._least = least_seconds
        self._limits: dict[tuple[str, ...], float] = {}  # by stage, once it has passed without a change

    def catch(self, change: Change, stages: Sequence[Sequence[str]]) -> bool:
        """Whether a stage of tests fails, or does not end in time. Raises SystemExit where one fails by itself."""
        target = self.tree / change.path
        source = target.read_bytes()
        for stage in stages:
            limit = self._limit(tuple(stage))
            target.write_bytes(change.made(source))
            try:
                if self._fails(stage, limit):
                    return True
            finally:
                target.write_bytes(source)
        return False

    def _limit(self, stage: tuple[str, ...]) -> float:
        """Three times what it takes without a change."""
        if stage not in self._limits:
            began = time.monotonic()
            if self._fails(stage, 1e9):
                raise SystemExit(f"fails without a change: {' '.join(stage)}")
            self._limits[stage] = max(self._least, 3 * (time.monotonic() - began))
        return self._limits[stage]

    def _fails(self, tests: Sequence[str], limit_seconds: float) -> bool:
        """In a child that has the test runner loaded, with all that it starts in a group of its own."""
        if not (pid := os.fork()):
            _run(self.tree, tests)
        ended = None
        try:
            until = time.monotonic() + limit_seconds
            while not (ended := os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)):
                if time.monotonic() > until:
                    self.endless += 1
                    break
                time.sleep(0.02)
        finally:  # also where we are told to end
            with suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)
            status = os.waitpid(pid, 0)[1]
        return status != 0 or not ended


def _run(tree: Path, tests: Sequence[str]) -> None:
    code = 1
    try:
        os.setsid()
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.chdir(tree)
        os.environ.update(
            PYTHONDONTWRITEBYTECODE="1",
            PYTHONPATH=str(tree),
            HYPOTHESIS_STORAGE_DIRECTORY=str(tree / ".hypothesis"),
        )
        sys.dont_write_bytecode = True
        sys.path[:] = [str(tree), *(path for path in sys.path if path and Path(path).resolve() != ROOT)]
        for name in [name for name in sys.modules if name.partition(".")[0] in ("tests", "maildefer")]:
            del sys.modules[name]
        nowhere = os.open(os.devnull, os.O_RDWR)
        for descriptor in (0, 1, 2):
            os.dup2(nowhere, descriptor)
        kind = _FAST
        if tests[0] == "lifecycle":
            kind, tests = "lifecycle and not slow", tests[1:]
        if tests[0] == "simulation":
            os.environ["PYTHONHASHSEED"] = "0"
            os.execv(sys.executable, [sys.executable, "-m", "tests.simulation", *tests[1:]])
        import pytest

        code = int(pytest.main([*_OPTIONS, "-m", kind, *tests]))
    finally:
        os._exit(code)


def _files(plan: dict[str, Any], only: str) -> list[str]:
    found = sorted({str(path.relative_to(ROOT)) for pattern in plan for path in ROOT.glob(pattern)})
    return [path for path in found if only in path and not path.endswith("__init__.py")]


def _tests(plan: dict[str, Any], path: str) -> list[list[str]]:
    """The stages: its own tests, those of its neighbours, then schedules of the simulation where it has it."""
    for pattern, stages in plan.items():
        if Path(path).match(pattern):
            stem = Path(path).stem
            stages = [[test.replace("{stem}", stem) for test in stage] for stage in stages]
            there = [[test for test in stage if _is_there(test)] for stage in stages]
            return [stage for stage in there if stage]
    raise LookupError(path)


def _is_there(test: str) -> bool:
    """Also what is no test's path: the name of a kind, or an option."""
    return not test.startswith("tests/") or (ROOT / test.partition("::")[0]).exists()


def _plan() -> dict[str, Any]:
    found: dict[str, Any] = tomllib.loads((Path(__file__).parent / "plan.toml").read_text())["files"]
    return found


def _accepted() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = tomllib.loads((Path(__file__).parent / "accepted.toml").read_text()).get(
        "change", []
    )
    return found


def _identity(accepted: dict[str, Any]) -> tuple[str, str, str, str, int]:
    return (
        accepted["path"],
        accepted.get("function", ""),
        accepted["before"],
        accepted["after"],
        accepted.get("nth", 1),
    )


def _copied() -> Path:
    tree = PLACE / f"tree-{os.getpid()}"
    shutil.copytree(ROOT, tree, ignore=shutil.ignore_patterns(*_LEFT_OUT), symlinks=True)
    return tree


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.mutation")
    parser.add_argument("--seed", type=int, default=1, help="decides the order (default 1)")
    parser.add_argument("--seconds", type=float, default=1e9, help="begin no other after so long")
    parser.add_argument("--mutants", type=int, default=None, help="so many at most")
    parser.add_argument("--only", default="", help="in files whose path has this text")
    parser.add_argument(
        "--limit",
        type=float,
        default=30.0,
        help="seconds that each stage has at least; longer counts as noticed",
    )
    parser.add_argument("--list", action="store_true", help="show what would be tried")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
