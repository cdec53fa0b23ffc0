"""The secret that signs a queue's task messages: who may write to its directory has it, a stranger by SMTP has not."""

from __future__ import annotations

import os
from typing import Final

from maildefer.digest import blake2b
from maildefer.maildir import durable
from maildefer.maildir.system import SYSTEM

_NAME: Final = ".maildefer/task-key"
_BYTES: Final = 32


def signature(queue: str, text: bytes) -> str:
    """The signature of `text` under the queue's secret, which is made where there is none yet. Raises OSError."""
    return blake2b(text, key=_secret(queue), digest_size=_BYTES).hexdigest()


def is_signed(queue: str, text: bytes, given: str) -> bool:
    """Whether `given` is the signature. Raises OSError, but for a missing secret, with which nothing was signed."""
    try:
        secret = _read(queue)
    except FileNotFoundError:
        return False
    wanted = blake2b(text, key=secret, digest_size=_BYTES).digest()
    try:
        got = bytes.fromhex(given)
    except ValueError:
        return False
    # Compared by their digests, so that the time tells nothing of how much was right (hmac would bring OpenSSL).
    nonce = os.urandom(16)
    return blake2b(got, key=nonce).digest() == blake2b(wanted, key=nonce).digest()


def _secret(queue: str) -> bytes:
    try:
        return _read(queue)
    except FileNotFoundError:
        pass
    path = os.path.join(queue, _NAME)
    draft = f"{path}.{SYSTEM.token(6)}"
    durable.write_new(draft, os.urandom(_BYTES))
    try:
        os.link(draft, path)  # the loser of a race takes the winner's; a rename would replace it
    except FileExistsError:
        pass
    finally:
        durable.discard(draft, SYSTEM)
    durable.sync_directory(os.path.dirname(path))
    return _read(queue)


def _read(queue: str) -> bytes:
    return durable.read_small(os.path.join(queue, _NAME), limit_bytes=_BYTES)
