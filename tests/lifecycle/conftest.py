"""Projects, and pools that end with the test, however it ends."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.lifecycle.pool import Pool, survivors
from tests.lifecycle.project import Project, eventually

Start = Callable[..., Pool]


@pytest.fixture
def project(tmp_path: Path, request: pytest.FixtureRequest) -> Project:
    """With a small TTL; or with the one of the test's mark `ttl`, for what must not wait for it."""
    mark = request.node.get_closest_marker("ttl")
    return Project(tmp_path, ttl_seconds=mark.args[0]) if mark else Project(tmp_path)


@pytest.fixture
def start(project: Project) -> Iterator[Start]:
    """Start a pool in the project, and wait until it is ready; what is left of it at the end is killed."""
    pools: list[Pool] = []

    def begin(*, ready: bool = True, **options: object) -> Pool:
        pool = Pool(project, **options)  # type: ignore[arg-type]
        pools.append(pool)
        pool.start()
        return pool.await_ready() if ready else pool

    yield begin
    for pool in pools:
        if pool.process is not None and pool.process.poll() is None:
            pool.kill_tree()
    eventually(lambda: not survivors(project.path), "every child ends with its supervisor")
