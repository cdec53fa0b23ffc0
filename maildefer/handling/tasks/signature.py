"""The secret of a queue that signs calls of tasks, each for the entry that holds it, so that copies are not valid."""

from __future__ import annotations

import os
from typing import Final

from maildefer.digest import blake2b
from maildefer.errors import QueueError, raise_named
from maildefer.maildir import durable
from maildefer.maildir.rights.confined import confined_to
from maildefer.maildir.rights.modes import rights_in
from maildefer.maildir.system import SYSTEM
from maildefer.storage_faults import SigningRefused

_NAME: Final = ".maildefer/task-key"
_BYTES: Final = 32
_BOUND: Final = b"call of an entry"  # no signature of this kind is one of the kind without a key
SIGNATURE_CHARACTERS: Final = 2 * _BYTES


def ensure_secret(queue: str) -> bytes:
    """The queue's secret, made if there is none. Raises StorageFault's kinds, QueueError for a damaged one."""
    queue = os.path.abspath(queue)
    path, system = f"{queue}/{_NAME}", confined_to(queue)
    try:
        if (there := read_secret(queue)) is not None:
            return there
        draft = f"{path}.{SYSTEM.token(6)}"
        durable.write_new(draft, os.urandom(_BYTES), rights=rights_in(queue), system=system)
        try:
            # The second of two processes uses the first one's, which a rename would replace.
            os.link(draft, path)
        except FileExistsError:
            pass
        finally:
            durable.discard(draft, system)
        durable.sync_directory(os.path.dirname(path), system=system)
        return _read(path)
    except OSError as fault:
        raise_named(path, fault, refused=SigningRefused)


def read_secret(queue: str) -> bytes | None:
    """The queue's secret; None if nothing was ever signed. Raises OSError, QueueError for a damaged one."""
    try:
        return _read(os.path.join(queue, _NAME))
    except FileNotFoundError:
        return None


def signature(secret: bytes, key: str, text: bytes) -> str:
    """The signature of the text in the entry of that key, and in no other."""
    signed = b"%b\0%b" % (os.fsencode(key), text)  # no name of a file has a NUL
    return blake2b(signed, key=secret, digest_size=_BYTES, person=_BOUND).hexdigest()


def signature_without_key(secret: bytes, text: bytes) -> str:
    """The signature of earlier versions, by which their calls are recognised and refused."""
    return blake2b(text, key=secret, digest_size=_BYTES).hexdigest()


def is_same(given: str, wanted: str) -> bool:
    """Compare two signatures by digests, so that the time tells nothing about them (hmac would load OpenSSL)."""
    nonce = os.urandom(16)
    digests = [blake2b(text.encode(), key=nonce).digest() for text in (given, wanted)]
    return digests[0] == digests[1]


def _read(path: str) -> bytes:
    secret = durable.read_small(path, limit_bytes=_BYTES)
    if len(secret) != _BYTES:  # with none at all, everybody could sign
        raise QueueError(
            f"{path}, which signs calls of tasks, is damaged: remove it, and defer again what was signed by it",
            path,
        )
    return secret
