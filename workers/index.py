"""The slow part: rebuild the front page, in another queue, so that no author waits for it."""

from __future__ import annotations

import logging

from maildefer.mail import MailRequest
from maildefer.routing import batch, route, stateless
from workers import blog

LOG = logging.getLogger("blog")


@route("(post_name)@osb\\.(host)")
@stateless
@batch(limit=500, linger=1)
def START(messages: list[MailRequest]) -> None:
    """Rebuild the front page once for all posts of the last second; running it twice does no harm."""
    count = blog.rebuild_index()
    LOG.info("front page of %d posts, for %d new ones", count, len(messages))
