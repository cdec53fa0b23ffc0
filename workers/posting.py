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

    Runs again if it was cut short, so each step can be done twice: the page is replaced by the same page. The answer
    goes into the queue of `relay_config`, where it is seen once this function has returned: never twice, and never of
    an attempt that failed.
    """
    if not message.From:
        raise Reject("a bounce, not a post")
    try:
        page = blog.publish(
            post_name, author=message.From, title=message["Subject"] or "", text=first_text(message)
        )
    except blog.PostNameRefused as refused:
        raise Reject(str(refused)) from refused
    if not message.is_automatic:
        answer = view.respond(
            {"page": page, "name": page.name, "host": host, "author": message.From},
            "page_ready.msg",
            From="%(name)s@osb.%(host)s",
            To="%(author)s",
            Subject="Your post is published",
        )
        # An answer by a program, from the null sender: nothing may answer it in turn (RFC 3834).
        answer["Auto-Submitted"] = "auto-replied"
        settings.relay.deliver(answer, From="")
    return "workers.index.START"


def first_text(message: MailRequest) -> str:
    """The first text in the message, or nothing."""
    bodies = [message.body(), *(part.body for part in message.walk())]
    return next((body for body in bodies if isinstance(body, str) and body.strip()), "")
