"""`python -m benchmarks peers`: the pool beside other queues, each in the durable configuration of its documents.

`contenders` lists them and says how their processes are run, `servers` has those that some of them need, and
`measurements` what is taken of one; `run` takes all in turn. `python -m benchmarks.peers` makes the table and the
picture of docs/performance.md from the figures kept. What runs in a peer's processes is in benchmarks/contenders/peers.
"""

from __future__ import annotations

from benchmarks.peers.run import measure

__all__ = ["measure"]
