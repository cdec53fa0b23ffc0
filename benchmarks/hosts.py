"""What 1 to 300 hosts ask of one NFS server, simulated: requests a second at idle, and for each message.

The pools are the real ones, on simulated time (tests/simulation/traffic.py); what a call of theirs takes was counted on
real NFS, and `wire` compares the two. Pushes are not counted here: `wire` has them.
"""

from __future__ import annotations

from benchmarks.figures import Figure
from tests.simulation.traffic import Counted, handled, idle

HOSTS, QUICK_HOSTS = (1, 3, 30, 100, 300), (1, 3, 10)
ARRIVALS = 1.0  # a second, for each host
SECONDS = 5.0
BACKLOG_A_HOST = 20


def measure(quick: bool) -> list[Figure]:
    """Idle hosts, then messages that come one by one, then a backlog."""
    figures = []
    for hosts in QUICK_HOSTS if quick else HOSTS:
        case = f"{hosts} host{'s' if hosts > 1 else ''}"
        at_rest = idle(hosts)
        figures += [
            _figure(case, "idle", "requests/s", at_rest.a_second),
            _figure(case, "idle, each", "requests/s", at_rest.a_host_second),
        ]
        rate = ARRIVALS * hosts
        messages = max(50, int(rate * SECONDS))
        figures += _under_load(case, f"{rate:g} a second", handled(hosts, messages, rate=rate), at_rest)
        figures += _under_load(case, "backlog", handled(hosts, max(300, BACKLOG_A_HOST * hosts)), at_rest)
    return figures


def _under_load(case: str, name: str, told: Counted, at_rest: Counted) -> list[Figure]:
    """What a message takes, beyond what the hosts ask for when they are idle."""
    beyond = told.requests.total() - at_rest.a_second * told.seconds
    listed = told.requests["READDIR"] - at_rest.requests["READDIR"] / at_rest.seconds * told.seconds
    return [
        _figure(case, f"{name}: all", "requests/s", told.a_second),
        _figure(case, f"{name}: a message", "requests", beyond / told.messages),
        _figure(case, f"{name}: of these READDIR", "requests", listed / told.messages),
        _figure(case, f"{name}: lost races", "a message", told.lost_races / told.messages),
    ]


def _figure(case: str, name: str, unit: str, value: float) -> Figure:
    return Figure(benchmark="hosts", case=case, name=name, unit=unit, samples=[value])
