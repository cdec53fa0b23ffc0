"""`POST /queues/NAME`: the request's body becomes an entry, durable before it is answered (I1)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from typing import assert_never

from aiohttp import ClientError, web
from aiohttp.http_exceptions import HttpProcessingError

from maildefer import events
from maildefer.errors import AddressRefused
from maildefer.intake import replies
from maildefer.intake.http import push_headers
from maildefer.intake.http.admission import RETRY_SECONDS
from maildefer.intake.http.api_tokens import ApiTokens, bearer
from maildefer.intake.http.options import HttpOptions
from maildefer.intake.http.service import begin_request
from maildefer.intake.outcomes import Refusal, Stored
from maildefer.intake.refusals import RefusalCounts
from maildefer.intake.smtp.syntax import is_too_long
from maildefer.intake.writer.client import WriterClient
from maildefer.intake.writer.protocol import Message
from maildefer.message.envelope import TOP_LIMIT_BYTES, encode_address


class PushRefused(Exception):
    """A request is refused: with an HTTP status, a text for the client, and one for the log where that says more."""

    def __init__(self, status: int, detail: str, reason: str = "") -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.reason = reason or detail


class PushEndpoint:
    """Handles all requests of the process. Event loop only."""

    def __init__(self, options: HttpOptions, writers: Mapping[str, WriterClient], tokens: ApiTokens) -> None:
        self._options = options
        self._writers = writers
        self._tokens = tokens
        self._accepted = self._held_bytes = 0
        self._refusals = RefusalCounts()

    def facts(self) -> dict[str, object]:
        """Facts of this process for `maildefer status`."""
        return {
            "accepted": self._accepted,
            "refused": self._refusals.counts,
            "held_bytes": self._held_bytes,
            "max_backlog": self._options.max_backlog,
            "min_free_bytes": self._options.min_free_bytes,
        }

    async def post(self, request: web.Request) -> web.Response:
        """Push the request's body: 201 with the keys, or a problem in JSON (RFC 9457)."""
        queue, began = request.match_info["name"], time.monotonic()
        begin_request(request)
        try:
            stored, size_bytes = await self._push(request)
        except PushRefused as refused:
            self._refusals.count(str(refused.status))
            events.emit(
                "intake.refused",
                client=request.remote,
                queue=queue,
                reason=refused.reason,
                status=refused.status,
            )
            return _problem(refused)
        keys = [each.key for each in stored]
        repeated = {"repeated": True} if stored[0].is_repeated else {}
        self._accepted += 1
        events.emit(
            "intake.accepted",
            keys=" ".join(keys),
            queue=queue,
            bytes=size_bytes,
            client=request.remote,
            duration_ms=events.ms(time.monotonic() - began),
            **repeated,
        )
        headers = {"Idempotent-Replayed": "true"} if repeated else None
        return web.json_response({"key": keys[0], "keys": keys, "queue": queue}, status=201, headers=headers)

    async def expect(self, request: web.Request) -> web.Response | None:
        """Answer `Expect: 100-continue`: a client that is refused anyway need not send the message."""
        begin_request(request)
        try:
            if request.headers["Expect"].lower() != "100-continue":
                raise PushRefused(417, "nothing is done here but 100-continue")
            await self._check(request)
        except PushRefused as refused:
            return _problem(refused)
        if request.transport is not None:
            request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        return None

    async def _check(self, request: web.Request) -> tuple[WriterClient, Message]:
        """Check all that can be checked without the body."""
        if ", ".join(request.headers.getall("Transfer-Encoding", ["chunked"])).lower() != "chunked":
            raise PushRefused(501, "no transfer coding but chunked is known here")
        queue = request.match_info["name"]
        allowed = self._tokens.allows(request.headers.get("Authorization", ""), queue)
        if allowed is None:
            raise PushRefused(401, "give a token: Authorization: Bearer TOKEN")
        writer = self._writers.get(queue)
        if writer is None or not allowed:  # a token that is not for it is not told whether it is there
            raise PushRefused(404, f"there is no queue {queue} for this token")
        if request.headers.get("Content-Encoding", "identity") != "identity":
            raise PushRefused(415, "send the message as it is: nothing is unpacked here")
        if (request.content_length or 0) > self._limit_bytes:
            raise PushRefused(413, f"more than {self._limit_bytes} bytes")
        message = self._with_headers(self._envelope(request), request)
        if not message.once and (shortage := await writer.shortage()):  # one that was stored is told of
            raise refused_push(Refusal.QUEUE_FULL, shortage)
        return writer, message

    async def _push(self, request: web.Request) -> tuple[list[Stored], int]:
        """Read the body, and push it: in parts where it is large."""
        writer, message = await self._check(request)
        pieces: list[bytes] = []
        draft = kept = size = 0
        whole = False
        digest = push_headers.fingerprint(message) if message.once else None
        try:
            async for piece in self._pieces(request):
                size += len(piece)
                if size > self._limit_bytes:
                    raise PushRefused(413, f"more than {self._limit_bytes} bytes")
                if self._held_bytes + len(piece) > self._options.max_held_bytes:
                    raise PushRefused(503, "too much in hand")
                if digest is not None:
                    digest.update(piece)
                pieces.append(piece)
                kept += len(piece)
                self._held_bytes += len(piece)
                if kept >= self._options.buffer_bytes:
                    draft = draft or writer.fresh_draft()
                    _refuse_faults(
                        await writer.push(message._replace(pieces=tuple(pieces), draft=draft, whole=False))
                    )
                    pieces.clear()
                    self._held_bytes -= kept
                    kept = 0
            if not size:
                raise PushRefused(400, "the message is empty")
            whole = True
            if digest is not None:
                message = message._replace(fingerprint=digest.hexdigest())
            stored = await writer.push(message._replace(pieces=tuple(pieces), draft=draft))
            _refuse_faults(stored)
            return stored, size
        finally:
            self._held_bytes -= kept
            if draft and not whole:
                writer.drop_draft(draft)

    async def _pieces(self, request: web.Request) -> AsyncIterator[bytes]:
        """Yield the body as it comes, within its time, and without long pauses."""
        clock = asyncio.get_running_loop().time
        deadline = clock() + self._options.data_seconds
        while True:
            pause_until = clock() + self._options.idle_seconds
            try:
                async with asyncio.timeout_at(min(deadline, pause_until)):
                    piece = await request.content.readany()
            except TimeoutError:
                if pause_until < deadline:
                    raise PushRefused(408, f"nothing came for {self._options.idle_seconds:g} s") from None
                raise PushRefused(408, f"it did not end within {self._options.data_seconds:g} s") from None
            except (ClientError, HttpProcessingError, OSError) as fault:
                raise PushRefused(400, _fault(fault), f"{_fault(fault)}: {type(fault).__name__}") from None
            if not piece:
                return
            yield piece

    def _envelope(self, request: web.Request) -> Message:
        """Read `?sender=` and any number of `?recipient=`; without them, the entry has no envelope."""
        if unknown := sorted(set(request.query) - {"sender", "recipient"}):
            name = f" {unknown[0]}" if unknown[0].isidentifier() and unknown[0].isascii() else ""
            raise PushRefused(400, f"no such parameter{name[:40]}: give sender, and recipient once for each")
        if len(request.query.getall("sender", [])) > 1:
            raise PushRefused(400, "sender is given more than once")
        sender, recipients = (
            request.query.get("sender"),
            tuple(dict.fromkeys(request.query.getall("recipient", []))),
        )
        if sender is not None and not recipients:
            raise PushRefused(400, "a sender without a recipient is no envelope: give recipient too")
        if len(recipients) > self._options.max_recipients:
            raise PushRefused(400, f"more than {self._options.max_recipients} recipients")
        try:
            for address in (sender or "", *recipients):
                encode_address(address)
                if is_too_long(address):
                    raise ValueError("a local part has 64 octets at most, a domain 255")
                if "\ufffd" in address:  # what the query's decoding makes of bytes that are no UTF-8
                    raise ValueError("an address has to be UTF-8, in percent-encoding")
            if not all(recipients):
                raise ValueError("a recipient cannot be empty")
        except AddressRefused as fault:  # which quotes the address
            raise PushRefused(400, f"the address is refused: {fault.why}", str(fault)) from None
        except ValueError as fault:
            raise PushRefused(400, str(fault)) from None
        client = f"([{request.remote}])" if request.remote else ""
        return Message(sender or "", recipients or ("",), (), "HTTP", client, True)

    def _with_headers(self, message: Message, request: web.Request) -> Message:
        """Read what its headers ask for."""
        try:
            asked = push_headers.parse(request.headers)
        except ValueError as fault:
            raise PushRefused(400, str(fault)) from None
        if asked is push_headers.NOTHING:
            return message
        if asked.dsn and not message.recipients[0]:
            raise PushRefused(400, f"{push_headers.DSN} is about an envelope: give recipient too")
        token = bearer(request.headers["Authorization"])
        return message._replace(
            once=push_headers.request_name(token, asked.idempotency_key) if asked.idempotency_key else "",
            after_seconds=asked.after_seconds,
            at=asked.at,
            dsn=dict.fromkeys(message.recipients, asked.dsn) if asked.dsn else {},
        )

    @property
    def _limit_bytes(self) -> int:
        return self._options.max_bytes - TOP_LIMIT_BYTES


def _refuse_faults(stored: list[Stored]) -> None:
    for each in stored:
        if each.fault is not None:
            raise refused_push(each.fault, each.reason)


def refused_push(refusal: Refusal, reason: str) -> PushRefused:
    """The response for a refusal, in the words of its SMTP reply; `reason` is for the log."""
    detail = replies.refused(refusal).text
    match refusal:
        case Refusal.KEY_REUSED:
            detail = f"{push_headers.KEY} was given with another request: make a new key for each message"
            return PushRefused(409, detail, reason)
        case Refusal.DUE_REFUSED:
            name, _, why = reason.partition("=")
            return PushRefused(400, f"Maildefer-{name.title()}: {why}", reason)
        case Refusal.ADDRESS_REFUSED:
            return PushRefused(400, detail, reason)
        case Refusal.TOO_LARGE:
            return PushRefused(413, detail, reason)
        case Refusal.MAIL_LOOP:
            return PushRefused(422, detail, reason)
        case Refusal.QUEUE_FULL | Refusal.STORAGE_FAILED | Refusal.INTERNAL_ERROR | Refusal.TOO_MUCH_HELD:
            return PushRefused(503, detail, reason)
        case _:
            assert_never(refusal)


def _fault(fault: Exception) -> str:
    if isinstance(fault, OSError):  # of the connection, whichever side ended it
        return "the message broke off"
    return "the message's body can't be read"


def _problem(refused: PushRefused) -> web.Response:
    headers = {"Retry-After": str(RETRY_SECONDS)} if refused.status == 503 else {}
    if refused.status == 401:
        headers["WWW-Authenticate"] = 'Bearer realm="maildefer"'
    response = web.json_response(
        {"status": refused.status, "detail": refused.detail},
        status=refused.status,
        headers=headers,
        content_type="application/problem+json",
    )
    if refused.status == 501:  # where the next request would begin is not known
        response.force_close()
    return response
