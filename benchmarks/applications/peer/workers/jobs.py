"""Does what the handlers of the peers do: see benchmarks/contenders/peers/job.py."""

from __future__ import annotations

from benchmarks.contenders.peers import job
from maildefer.mail import MailRequest
from maildefer.routing import route, stateless


@route("job-(number)-(milliseconds)@(host)", number="[0-9]+", milliseconds="[0-9]+", host=".+")
@stateless
def START(message: MailRequest, number: str = "", milliseconds: str = "", host: str = "") -> None:
    """The recipient says which job this is, and how long it takes."""
    job.run(int(number), int(milliseconds))
