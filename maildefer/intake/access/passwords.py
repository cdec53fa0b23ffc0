"""Names and hashed passwords in a file: `NAME:HASH` a line, in which `#` begins a comment.

HASH is `$scrypt$ln=14,r=8,p=1$SALT$KEY`, both in base64 without padding: RFC 7914's function with 2^ln rounds, and the
parameters of its own for interactive use: 16 MB of memory.
"""

from __future__ import annotations

import hashlib
import os
import re
from base64 import b64decode, b64encode
from hmac import compare_digest
from shlex import quote
from typing import Final

from maildefer.errors import ConfigurationError

_LOG_ROUNDS: Final = 14
_BLOCK: Final = 8
_PARALLEL: Final = 1
_SALT_BYTES: Final = 16
_KEY_BYTES: Final = 32
_MOST_MEMORY: Final = 256 << 20
_HASH: Final = re.compile(
    r"\$scrypt\$ln=(\d{1,2}),r=(\d{1,2}),p=(\d{1,2})\$([A-Za-z0-9+/]+)\$([A-Za-z0-9+/]{22,})"
).fullmatch
_NAME: Final = re.compile(r"[^\s:#\x00-\x1f\x7f][^:\x00-\x1f\x7f]*").fullmatch


def hashed(password: str) -> str:
    """Hash a password with a new salt, for a line of the file."""
    salt = os.urandom(_SALT_BYTES)
    key = _derived(password, salt, _LOG_ROUNDS, _BLOCK, _PARALLEL, _KEY_BYTES)
    return f"$scrypt$ln={_LOG_ROUNDS},r={_BLOCK},p={_PARALLEL}${_text(salt)}${_text(key)}"


def matches(password: str, known: str) -> bool:
    """Whether the hash is the password's: tenths of a second of work, without the interpreter's lock.

    Raises ValueError for what is no hash of such a file.
    """
    if (parts := _HASH(known)) is None:
        raise ValueError("no hash of maildefer's")
    salt, key = _bytes(parts[4]), _bytes(parts[5])
    rounds, block, parallel = int(parts[1]), int(parts[2]), int(parts[3])
    return compare_digest(key, _derived(password, salt, rounds, block, parallel, len(key)))


def read(path: str) -> dict[str, str]:
    """Each name's hash. Raises ConfigurationError for a file that can't be used, or that everybody may read."""
    try:
        with open(path, encoding="utf-8") as file:
            if os.fstat(file.fileno()).st_mode & 0o004:
                raise ConfigurationError(f"everybody may read the passwords in {path}: chmod o= {path}")
            lines = file.read().split("\n")
    except (OSError, UnicodeDecodeError) as fault:
        raise ConfigurationError(
            f"the passwords in {path} can't be read ({fault}): `maildefer passwd {quote(path)} NAME` makes such a file"
        ) from fault
    found: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.startswith("#"):
            continue
        name, _, known = line.strip().partition(":")
        if not is_name(name) or not _HASH(known) or name in found:
            raise ConfigurationError(
                f"{path}, line {number}: no `NAME:HASH`, or a name's second; "
                f"`maildefer passwd {quote(path)} NAME` makes one"
            )
        found[name] = known
    return found


def write(path: str, known: dict[str, str]) -> None:
    """Write all of them, by a rename; a file that is there keeps its mode and owner, a new one is its owner's alone."""
    draft = f"{path}.{os.urandom(8).hex()}.draft"
    try:
        before = os.stat(path)
    except FileNotFoundError:
        before = None
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with open(descriptor, "w", encoding="utf-8") as file:
            if before is not None:
                os.fchown(descriptor, before.st_uid, before.st_gid)
                os.fchmod(descriptor, before.st_mode & 0o770)
            file.writelines(f"{name}:{hash_}\n" for name, hash_ in sorted(known.items()))
            file.flush()
            os.fsync(descriptor)
        os.replace(draft, path)
    except BaseException:
        os.unlink(draft)
        raise


def is_name(text: str) -> bool:
    return len(text) <= 255 and _NAME(text) is not None


def _derived(password: str, salt: bytes, rounds: int, block: int, parallel: int, size: int) -> bytes:
    return hashlib.scrypt(
        password.encode(), salt=salt, n=1 << rounds, r=block, p=parallel, maxmem=_MOST_MEMORY, dklen=size
    )


def _text(data: bytes) -> str:
    return b64encode(data).decode().rstrip("=")


def _bytes(text: str) -> bytes:
    return b64decode(text + "=" * (-len(text) % 4))
