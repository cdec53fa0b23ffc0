"""Runs a contender that waits at its gate: started and forked first, then the clock, then the work."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from types import TracebackType

from benchmarks.places import ROOT


class Gated:
    """A program that says "ready" and begins at a line on stdin. It is killed if left before its end."""

    def __init__(self, command: Sequence[str], env: Mapping[str, str] | None = None) -> None:
        self._process = subprocess.Popen(
            command, cwd=ROOT, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def __enter__(self) -> Gated:
        assert self._process.stdout is not None
        if (said := self._process.stdout.readline()) != "ready\n":
            raise RuntimeError(f"{self._process.args!r} said {said!r} instead of ready")
        return self

    def open(self, line: str = "") -> None:
        """Lets it begin."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()

    def ask(self, line: str) -> str:
        """Lets it do a part of its work; the line that it prints then."""
        self.open(line)
        assert self._process.stdout is not None
        return self._process.stdout.readline()

    def result(self) -> str:
        """What it printed at its end, which one that was asked for parts reaches now."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        printed = self._process.stdout.read()
        if self._process.wait() != 0:
            raise RuntimeError(f"{self._process.args!r} ended with {self._process.returncode}")
        return printed

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()
