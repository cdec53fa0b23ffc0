"""A call of a task as a message: its JSON, and the signature of that JSON for the entry in which it waits.

Nothing in a call is used before its signature is checked: anybody who may write to `new/` can put anything there.
"""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from maildefer.handling.outcomes import Reject
from maildefer.handling.tasks import signature as task_signature
from maildefer.handling.tasks.arguments import ArgumentsRefused, argument, restored, survives
from maildefer.maildir.names import sized
from maildefer.message.envelope import block

if TYPE_CHECKING:
    from inspect import BoundArguments, Signature

SIGNATURE: Final = "Maildefer-Signature"
_HEAD: Final = re.compile(rf"To: [^\n]*\nSubject: [^\n]*\n{SIGNATURE}: ([0-9a-f]+)\n(?:[^\n]+\n)*\n".encode())


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A task and its arguments: what was given by name is in `kwargs`, so that it is bound by name when it is made."""

    task: str
    args: Sequence[Any]
    kwargs: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class UnsignedMessage:
    """The message of a call without its signature, whose size is known."""

    top: bytes
    text: bytes

    @classmethod
    def of(cls, call: Call, address: str, parameters: Sequence[str] = ()) -> UnsignedMessage:
        """Make it. Raises ArgumentsRefused for arguments that would not be read as they are."""
        top = f"To: {address}\nSubject: {call.task}\n{SIGNATURE}: "
        return cls(top=top.encode(), text=_encoded(call, parameters))

    @property
    def size_bytes(self) -> int:
        return len(self._with("0" * task_signature.SIGNATURE_CHARACTERS))

    def signed(self, secret: bytes, key: str) -> bytes:
        """The message for the entry of that key."""
        return self._with(task_signature.signature(secret, key, self.text))

    def _with(self, signature: str) -> bytes:
        end = "\nMIME-Version: 1.0\nContent-Type: application/json\n\n"
        return b"%b%b%b%b\n" % (self.top, signature.encode(), end.encode(), self.text)


def composed(
    call: Call, address: str, queue: str, host: str, parameters: Sequence[str] = ()
) -> Callable[[str], tuple[bytes, bytes]]:
    """Return what composes the entry of a call, for `Pusher`; the queue's secret is made if there is none.

    `parameters` are the names of the first arguments, for errors. Raises ArgumentsRefused, StorageFault's kinds,
    QueueError.
    """
    message, secret = UnsignedMessage.of(call, address, parameters), task_signature.ensure_secret(queue)

    def compose(stem: str) -> tuple[bytes, bytes]:
        top = block(stem, "", address, host=host, when=time.time(), via="push")
        return top, message.signed(secret, sized(stem, len(top) + message.size_bytes))

    return compose


def call_in(data: bytes, queue: str, key: str) -> Call:
    """The call in a message that was found in the queue under that key, its entry's own.

    Raises Reject for a message that is no call, or is not signed for that entry; OSError, QueueError.
    """
    found = _HEAD.match(data)
    if found is None:
        raise Reject("no call of a task, and neither is a copy of one under another name")
    text, given = data[found.end() :].rstrip(b"\n"), found[1].decode()
    secret = task_signature.read_secret(queue)
    if secret is None or not task_signature.is_same(given, task_signature.signature(secret, key, text)):
        if secret is not None and task_signature.is_same(
            given, task_signature.signature_without_key(secret, text)
        ):
            raise Reject(
                "a call that an earlier version of maildefer signed, as good in a copy as in its own entry: "
                "if it is still to be made, defer it again; its arguments are in the message"
            )
        raise Reject("a call of a task that was not deferred here, or a copy of one under another name")
    return _decoded(text)


def is_call(data: bytes, secret: bytes, key: str) -> bool:
    """Whether it is a call that was signed for the entry of that key."""
    found = _HEAD.match(data)
    text = b"" if found is None else data[found.end() :].rstrip(b"\n")
    return found is not None and task_signature.is_same(
        found[1].decode(), task_signature.signature(secret, key, text)
    )


def signed_anew(data: bytes, secret: bytes, key: str) -> bytes:
    """The call for another entry, for an operator who may read the secret; what is no call stays as it is."""
    if (found := _HEAD.match(data)) is None or len(found[1]) != task_signature.SIGNATURE_CHARACTERS:
        return data
    signature = task_signature.signature(secret, key, data[found.end() :].rstrip(b"\n"))
    return data[: found.start(1)] + signature.encode() + data[found.end(1) :]


def bound(call: Call, signature: Signature) -> BoundArguments:
    """The call's arguments as the function, which may have changed meanwhile, takes them now. Raises Reject."""
    try:
        return signature.bind(*call.args, **call.kwargs)
    except TypeError as fault:
        raise Reject(
            f"{call.task} does not take the arguments of this call: {fault}: make it take them and requeue the call, "
            "or defer it anew; its arguments are in the message"
        ) from fault


def _encoded(call: Call, parameters: Sequence[str]) -> bytes:
    typed: set[str] = set()
    names = [
        *parameters[: len(call.args)],
        *(f"argument {n + 1}" for n in range(len(parameters), len(call.args))),
    ]
    try:
        args = [argument(one, name, typed) for one, name in zip(call.args, names, strict=True)]
        kwargs = {name: argument(one, name, typed) for name, one in call.kwargs.items()}
        given = {"task": call.task, "args": args, "kwargs": kwargs, "typed": True}
        if not typed:  # written as by every version
            given = {"task": call.task, "args": call.args, "kwargs": call.kwargs}
        text = json.dumps(given, allow_nan=False).encode()
        read = _strictly(text.decode())
    except ArgumentsRefused as fault:
        raise ArgumentsRefused(f"{call.task}: {fault}") from fault.__cause__
    except (TypeError, ValueError, RecursionError) as fault:
        raise ArgumentsRefused(
            f"{call.task}: its arguments are no JSON: {fault}: give plain values"
        ) from fault
    before, found = [*call.args, *call.kwargs.values()], [*read["args"], *read["kwargs"].values()]
    for name, value, one in zip([*names, *call.kwargs], before, found, strict=True):
        try:
            after = restored(one) if typed else one
        except Reject as fault:
            why = fault.__cause__ or fault
            raise ArgumentsRefused(
                f"{call.task}: {name} can't be read again, {type(why).__name__}: {why}: make the decode of its type "
                f"take what encode has made: {one!r:.200}"
            ) from why
        if not survives(value, after):
            raise ArgumentsRefused(f"{call.task}: {name} would not come out of JSON as it is: {after!r:.200}")
    return text


def _decoded(text: bytes) -> Call:
    try:
        read = _strictly(text.decode("ascii"))
    except (ValueError, RecursionError) as fault:
        raise Reject(f"a call of a task that is no JSON: {fault}") from fault
    match read:
        case {"task": str() as task, "args": list() as args, "kwargs": dict() as kwargs, **more}:
            if not more:
                return Call(task=task, args=args, kwargs=kwargs)
            if more.pop("typed", None) is True and not more:
                kwargs = {name: restored(one) for name, one in kwargs.items()}
                return Call(task=task, args=restored(args), kwargs=kwargs)
    raise Reject("a call of a task without its name and arguments")


def _strictly(text: str) -> Any:
    """Read JSON as RFC 8259 has it: `json` accepts NaN and Infinity, also as 1e999, and repeated names."""
    return json.loads(text, parse_constant=_number, parse_float=_number, object_pairs_hook=_named_once)


def _number(text: str) -> float:
    if not math.isfinite(number := float(text)):
        raise ValueError(f"{text} is no number of JSON")
    return number


def _named_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    named = dict(pairs)
    if len(named) < len(pairs):
        raise ValueError("a name stands twice in one object")
    return named
