"""The quick part: publish the post, answer its author, hand the slow part on."""

from __future__ import annotations

from maildefer import view
from maildefer.mail import MailRequest
from maildefer.routing import Reject, route, stateless
from maildefer.utils import settings
from workers import blog


@route("(post_name)@osb\\.(host)")
@stateless
def POSTING(message: MailRequest, post_name: str, host: str) -> str:
    """Publish the post and tell its author, then go on in the queue of `workers.index`.

    Runs again if it was cut short, so each step can be done twice: the page is replaced by the same page, and the
    author isn't told again. A relay that can't be reached raises, which defers the message with backoff.
    """
    if not message.From:
        raise Reject("a bounce, not a post")
    try:
        page = blog.publish(
            post_name, author=message.From, title=message["Subject"] or "", text=first_text(message)
        )
    except blog.PostNameRefused as refused:
        raise Reject(str(refused)) from refused
    key = message.key  # there is always one in a queue, and none in a `RouterConversation`
    if not message.is_automatic and not (key and blog.was_answered(key)):
        answer = view.respond(
            {"page": page, "name": page.name, "host": host, "author": message.From},
            "page_ready.msg",
            From="%(name)s@osb.%(host)s",
            To="%(author)s",
            Subject="Your post is published",
        )
        # An answer by a program, from the null sender: nothing may answer it in turn (RFC 3834).
        answer["Auto-Submitted"] = "auto-replied"
        # At once, since it is noted: what waits for this function's return is discarded with an attempt cut short.
        settings.relay.deliver(answer, From="", now=True)
        if key:
            blog.note_answered(key)
    return "workers.index.START"


def first_text(message: MailRequest) -> str:
    """The first text in the message, or nothing."""
    bodies = [message.body(), *(part.body for part in message.walk())]
    return next((body for body in bodies if isinstance(body, str) and body.strip()), "")
