"""`python -m benchmarks [NAME …] [--quick]`: runs benchmarks, prints a table for each, and keeps the figures."""

from __future__ import annotations

import argparse
import importlib
import signal
import sys
from typing import Protocol, cast

from benchmarks import scale
from benchmarks.figures import Figure, keep, machine, show
from benchmarks.places import RESULTS, Unavailable

NAMES = (
    "drain",
    "peers",
    "push",
    "unique",
    "intake",
    "outgoing",
    "outputs",
    "large",
    "idle",
    "latency",
    "backlog",
    "deferred",
    "grown",
    "recovery",
    "syscalls",
    "tokens",
    "journal",
    "batches",
    "limits",
    "middleware",
    "watched",
    "concurrent",
    "routes",
    "parsing",
    "handler",
    "context",
    "nfs",
    "wire",
    "hosts",
    "scale",
)


class Benchmark(Protocol):
    """What each module offers."""

    def measure(self, quick: bool) -> list[Figure]: ...


def main() -> int:
    description = "Measure maildefer beside what else there is."
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=description)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"which to run, of {', '.join(NAMES)} (all)")
    parser.add_argument("--quick", action="store_true", help="fewer rounds and entries: to see that it works")
    parser.add_argument("--sizes", metavar="N,N", help="entries, for scale: two sizes or more")
    arguments = parser.parse_args()
    if unknown := set(arguments.names) - set(NAMES):
        parser.error(f"no benchmark {', '.join(sorted(unknown))}; there are {', '.join(NAMES)}")
    signal.signal(signal.SIGTERM, lambda signum, frame: sys.exit(128 + signum))  # mounts are cleaned up
    print(", ".join(f"{name} {value}" for name, value in machine().items()))
    if arguments.sizes:
        scale.sizes = tuple(int(size.replace("_", "")) for size in arguments.sizes.split(","))
    failed = [name for name in arguments.names or NAMES if not run(name, quick=arguments.quick)]
    print(f"figures kept in {RESULTS}")
    if failed:
        print(f"below the mark: {', '.join(failed)}")
    return int(bool(failed))


def run(name: str, *, quick: bool) -> bool:
    """Runs one; False when a limit was missed."""
    module = cast(Benchmark, importlib.import_module(f"benchmarks.{name}"))
    print(f"\n{name}: {(module.__doc__ or '').splitlines()[0]}")
    try:
        figures = module.measure(quick)
    except Unavailable as why:
        print(f"  skipped: {why}")
        return True
    except RuntimeError as failure:
        print(f"  failed: {failure}")
        return False
    show(figures)
    keep(figures)
    return not any(figure.passed is False for figure in figures)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
