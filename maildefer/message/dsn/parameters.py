"""What a sender asks of reports on its message (RFC 3461, section 4): RET, ENVID, NOTIFY and ORCPT.

They are kept as one text, as they came and in this order, such as
`RET=HDRS ENVID=QQ314159 NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;ann@osb.example`: it stands in the envelope block.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

OF_MESSAGE: Final = ("RET", "ENVID")
OF_RECIPIENT: Final = ("NOTIFY", "ORCPT")

_MOST_OF_ENVID: Final = 100  # characters; section 4.4
_MOST_OF_ORCPT: Final = 500  # section 4.2
_XTEXT: Final = re.compile(r"(?:[!-*,-<>-~]|\+[0-9A-F]{2})+").fullmatch
_HEX: Final = re.compile(r"\+([0-9A-F]{2})")
_HIGH: Final = re.compile(rb"\+([89A-F][0-9A-F])")
_PRINTABLE: Final = re.compile(r"[ -~]+").fullmatch
_TYPE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9!#$%&'*+./^_`{|}~-]*").fullmatch
_NOT_ASCII: Final = re.compile(r"[^\x00-\x7f]")
_EVENTS: Final = ("SUCCESS", "FAILURE", "DELAY")


class ParameterRefused(ValueError):
    """A value that RFC 3461 does not allow."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DsnParameters:
    """What the sender asks for; what it does not say is empty."""

    ret: str = ""
    """`FULL` or `HDRS`: how much of the message comes back in a report of failure."""
    envid: str = ""
    """The sender's name for this transaction, decoded: printable ASCII."""
    notify: frozenset[str] = frozenset()
    """`NEVER` alone, or which of `SUCCESS`, `FAILURE` and `DELAY` are reported."""
    orcpt: str = ""
    """The recipient as the sender knows it, with the type of address, decoded: `rfc822;ann@osb.example`."""

    def wants(self, event: str) -> bool:
        """Whether `SUCCESS`, `FAILURE` or `DELAY` may be reported; a sender that says nothing hears of failures."""
        return event in self.notify if self.notify else event == "FAILURE"


def taken(parameters: dict[str, str], names: tuple[str, ...]) -> str:
    """The text for those of the names that a command gives, which are removed. Raises ParameterRefused."""
    given = [name for name in names if name in parameters]
    return " ".join([f"{name}={_CHECKS[name](parameters.pop(name))}" for name in given])


def checked(text: str) -> str:
    """The text of all parameters that a program or an operator gives. Raises ParameterRefused."""
    words = [word.partition("=")[::2] for word in text.split()]
    parameters = {name.upper(): value for name, value in words}
    if len(parameters) < len(words):
        raise ParameterRefused("give each parameter once")
    found = taken(parameters, (*OF_MESSAGE, *OF_RECIPIENT))
    if parameters:
        raise ParameterRefused(f"{next(iter(parameters))[:40]!r} is none of RET, ENVID, NOTIFY and ORCPT")
    return found


def parsed(text: str) -> DsnParameters:
    """The parameters in an entry's text, which another program may have written: what is wrong is left out."""
    found: dict[str, str] = {}
    for word in text.split():
        name, _, value = word.partition("=")
        try:
            found[name] = _CHECKS[name](value) if name in _CHECKS else ""
        except ParameterRefused:
            continue
    return DsnParameters(
        ret=found.get("RET", ""),
        envid=_decoded(found.get("ENVID", "")),
        notify=frozenset(found["NOTIFY"].split(",") if "NOTIFY" in found else ()),
        orcpt=_decoded(found.get("ORCPT", "")),
    )


def _ret(value: str) -> str:
    if value.upper() not in ("FULL", "HDRS"):
        raise ParameterRefused("RET is FULL or HDRS")
    return value.upper()


def _notify(value: str) -> str:
    words = value.upper().split(",")
    if words != ["NEVER"] and not set(words) <= set(_EVENTS):
        raise ParameterRefused(
            "NOTIFY is NEVER alone, or SUCCESS, FAILURE and DELAY with commas between them"
        )
    return ",".join(dict.fromkeys(words))


def _envid(value: str) -> str:
    if len(value) > _MOST_OF_ENVID or not _is_xtext(value):
        raise ParameterRefused(f"ENVID is xtext of printable ASCII, at most {_MOST_OF_ENVID} characters")
    return value


def _orcpt(value: str) -> str:
    """With SMTPUTF8 the address may be UTF-8, bare or as xtext, and Postfix calls it `rfc822`: it becomes ASCII."""
    kind, semicolon, address = value.partition(";")
    try:
        text = _HIGH.sub(lambda pair: bytes.fromhex(pair[1].decode()), address.encode()).decode()
    except UnicodeError:
        text = address
    if not text.isascii():
        kind, address = "utf-8", ascii_address(text)
    if not semicolon or not _TYPE(kind) or not _is_xtext(address):
        raise ParameterRefused("ORCPT is a type, a semicolon and an address in xtext: rfc822;ann@osb.example")
    if len(kind) + 1 + len(address) > _MOST_OF_ORCPT:
        raise ParameterRefused(f"ORCPT has at most {_MOST_OF_ORCPT} characters")
    return f"{kind};{address}"


def ascii_address(address: str) -> str:
    """An address beyond ASCII as text of the type `utf-8` (RFC 6533, section 3)."""
    return _NOT_ASCII.sub(lambda sign: f"\\x{{{ord(sign[0]):X}}}", address)


def _is_xtext(value: str) -> bool:
    return _XTEXT(value) is not None and _PRINTABLE(_decoded(value)) is not None


def _decoded(value: str) -> str:
    return _HEX.sub(lambda pair: chr(int(pair[1], 16)), value)


_CHECKS: Final[Mapping[str, Callable[[str], str]]] = {
    "RET": _ret,
    "ENVID": _envid,
    "NOTIFY": _notify,
    "ORCPT": _orcpt,
}
