"""Forward every message by `settings.relay`, below a Received line of ours: a module for `Router.load` or the settings.

An open relay, if strangers can reach the front end.
"""

from __future__ import annotations

from maildefer import utils
from maildefer.delivery import forwarded
from maildefer.mail import MailRequest
from maildefer.routing import route, stateless


@route("(to)@(host)", to=".+", host=".+")
@stateless
def START(message: MailRequest, to: str | None = None, host: str | None = None) -> None:
    onwards = MailRequest(message.Peer, message.From, message.To, forwarded(message))
    onwards.came_with = message.came_with
    utils.settings.relay.deliver(onwards)
