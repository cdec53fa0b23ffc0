"""One entry of the outgoing queue, delivered to its recipient: what the server says is what becomes of it."""

from __future__ import annotations

import os
import re
import socket
import threading
import time
from contextlib import suppress
from typing import Any

from maildefer import events, log_context
from maildefer.errors import AddressRefused
from maildefer.handling.outcomes import Defer, DestinationDown
from maildefer.handling.outgoing.destinations import Destination, recipient_of
from maildefer.handling.outgoing.failure import DeliveryFailed, Relayed, said
from maildefer.handling.project import queue_paths
from maildefer.handling.retry import RetryPolicy
from maildefer.maildir.due import clock_of
from maildefer.maildir.names import pushed_at
from maildefer.maildir.upkeep.closures import LAST_FAILURES, Closures
from maildefer.message.dsn.asked import passed_on
from maildefer.message.envelope import date, encode_address
from maildefer.message.outgoing import mx
from maildefer.message.outgoing.connection import opened
from maildefer.message.outgoing.refusals import ServerReply, is_final
from maildefer.message.outgoing.smtp_delivery import UNREACHED, SmtpDelivery
from maildefer.message.outgoing.stamps import stamped
from maildefer.message.outgoing.wire_message import wire_bytes

_STEM = re.compile(r"[!-:=?-~]+").fullmatch
_SIGNATURE = re.compile(rb"^dkim-signature[ \t]*:", re.IGNORECASE | re.MULTILINE).search
_BAD_ADDRESS = 553
_DOWN = 0  # the code of what no server has said
_CLOCKS_DIFFER_SECONDS = 86400.0  # this host's clock only saves a look at the mount's
_EARLY_SECONDS = 60.0  # the lifetime ends here, before it ends where an attempt is settled


class Delivery:
    """The delivery of a message to its recipient. `send` is for a thread; `abort` ends it, from another one."""

    def __init__(self, message: Any, destination: Destination, policy: RetryPolicy) -> None:
        self._message = message
        self._policy = policy
        self._recipient = recipient_of(message)
        envelope = message.came_with
        self._sender: str = envelope.sender if envelope is not None else message.From
        self._destination = destination.name
        self._relay = destination.relay
        self._thread = 0  # in which it is sent
        self._must_be_addresses()
        self._delivery = SmtpDelivery(
            destination.relay, self._sender, _traced(message), passed_on(message, self._sender)
        )

    def send(self) -> None:
        """Send it. Raises DeliveryFailed for good, and Defer, or its DestinationDown, where it is to be tried again."""
        self._thread = threading.get_ident()
        self._must_have_time_left()
        recipient, delivery = self._recipient, self._delivery
        if queue_paths.redirect is not None:  # in tests, it goes to the queue of what was sent
            self._relay.deliver(self._message, To=recipient, From=self._sender)
            return
        delivery.send([recipient])
        host, reply = delivery.said.get(recipient, ("", (0, b"")))
        if recipient in delivery.taken:
            words = said(reply, host)
            tls = {"tls": delivery.encryption} if delivery.encryption else {}
            events.emit("entry.delivered", to=recipient, reply=words, **tls, **log_context.facts())
            if (came := self._message.came_with) is not None and came.dsn:
                came.is_passed_on, came.relayed = delivery.takes_dsn, Relayed(reply, host)
            return
        refused = delivery.refused[recipient]
        if is_final(refused[0]):
            raise DeliveryFailed(recipient, refused, host)
        if (self._message.attempt or 1) >= self._policy.min_attempts and self._is_old():
            raise DeliveryFailed(recipient, refused, host, self._age())
        if not delivery.reached:
            code = _DOWN if refused[0] == UNREACHED else refused[0]
            raise DestinationDown(said((code, refused[1]), delivery.asked))
        raise Defer(f"{recipient}: {said(refused, host)}")

    def abort(self) -> None:
        """Break the connection, so that the thread ends; where it has none yet, it sends nothing."""
        self._delivery.is_aborted = True
        connection = self._delivery.connection
        sock = opened.get(self._thread) if connection is None else connection.sock
        with suppress(OSError):
            if sock is not None:
                sock.shutdown(socket.SHUT_RDWR)

    def _must_be_addresses(self) -> None:
        """Raise DeliveryFailed for what can't go into an SMTP command: entries are others' writing, too."""
        if not self._recipient:
            raise self._no_address("it has no recipient")
        for address in (self._sender, self._recipient):
            try:
                encode_address(address).decode()
            except (AddressRefused, UnicodeDecodeError) as fault:
                raise self._no_address(str(fault)) from None
        if self._relay.hostname is None and self._recipient.rpartition("@")[1:] in (
            ("", self._recipient),
            ("@", ""),
        ):
            raise self._no_address("it has no domain whose server could be looked up")

    def _no_address(self, why: str) -> DeliveryFailed:
        reply: ServerReply = (_BAD_ADDRESS, f"5.1.3 {why}".encode("utf-8", "backslashreplace"))
        return DeliveryFailed(self._recipient, reply)

    def _must_have_time_left(self) -> None:
        """Raise DeliveryFailed for what has waited for its lifetime for a destination that is down still."""
        queue, may_be_old = self._message.queue, self._policy.lifetime_seconds - _CLOCKS_DIFFER_SECONDS
        if queue is None or self._age(roughly=True) < may_be_old or not self._is_old():
            return
        layout = queue_paths.home_queue(queue)
        known = Closures(layout, now=clock_of(layout).now).record(self._destination)
        if known is not None and known.closure.failures >= LAST_FAILURES:
            raise DeliveryFailed(self._recipient, (_DOWN, known.words.encode()), "", self._age())

    def _is_old(self) -> bool:
        """Whether it is too old to be tried again, as it would be found a moment later, when it is settled."""
        return self._age() >= self._policy.lifetime_seconds - _EARLY_SECONDS

    def _age(self, *, roughly: bool = False) -> float:
        """Its age in seconds, by the time of its queue's mount; `roughly`, by this host's, which costs no look."""
        message = self._message
        pushed = pushed_at(message.copied_as or message.key or "")
        if pushed is None:
            return 0.0
        is_here = roughly or message.queue is None
        now = time.time() if is_here else clock_of(queue_paths.queue_at(message.queue)).now()
        return max(0.0, now - pushed)


def _traced(message: Any) -> bytes:
    """The message as it goes out, below a Received line of ours, by which a mail loop is found (RFC 5321, 4.4).

    A message that was pushed without Date and Message-ID gets them, the same at each attempt (RFC 6409, section 8).
    """
    stem = (message.key or "").partition(",")[0]  # of another writer's file, it may be anything
    identity = f" id {stem}" if _STEM(stem) else ""
    data = wire_bytes(message)
    if not _SIGNATURE(data, 0, max(0, data.find(b"\r\n\r\n"))):  # which may be over fields that are not there
        data = stamped(data, message.From, stem if identity else None, mx.own_name(), when=pushed_at(stem))
    by = mx.configured_name or os.uname().nodename
    line = f"Received: by {by} (maildefer){identity}; {date(time.time())}\r\n"
    return line.encode("utf-8", "backslashreplace") + data
