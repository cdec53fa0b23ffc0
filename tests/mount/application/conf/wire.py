"""Queues that pools of `benchmarks/wire.py` serve, each those that its command names."""

from __future__ import annotations

from conf.settings import router_defaults as router_defaults

queues = {f"/mnt/nfs/{name}": ["workers.figure"] for name in ("queue", "one", "eight", "a", "b", "c")}
