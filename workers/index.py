"""The slow part: rebuild the front page, in another queue, so that no author waits for it."""

from __future__ import annotations

from maildefer.mail import MailRequest
from maildefer.routing import route, stateless
from workers import blog


@route("(post_name)@osb\\.(host)")
@stateless
def START(message: MailRequest, post_name: str, host: str) -> None:
    """Rebuild the front page; running it twice, or in eight workers at the same time, does no harm."""
    blog.rebuild_index()
    if message.key:
        blog.forget_answered(message.key)
