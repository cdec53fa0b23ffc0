"""Projects, and pools that end with the test, however it ends."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from maildefer.maildir import journal
from tests.lifecycle.pool import Pool, survivors
from tests.lifecycle.project import TTL_SECONDS, Project, eventually

Start = Callable[..., Pool]


@pytest.fixture
def project(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Project]:
    """With a small TTL; or with the one of the test's mark `ttl`, for what must not wait for it.

    Its queues keep a journal, by which nothing may be lost in the end, whatever the test was about.
    """
    mark = request.node.get_closest_marker("ttl")
    ttl_seconds = mark.args[0] if mark else TTL_SECONDS
    yield Project(tmp_path, ttl_seconds=ttl_seconds, journal=True)
    journal.close_journals()


@pytest.fixture
def fronted(project: Project) -> Project:
    """The project with a front end by SMTP."""
    project.edit(
        "conf/settings.py", "router_def", 'receiver_config = {"host": "127.0.0.1", "port": 0}\nrouter_def'
    )
    return project


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
    assert project.lost() == []
