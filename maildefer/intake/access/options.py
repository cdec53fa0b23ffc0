"""Whom the front end trusts, and how it proves itself: options of its command line and of the settings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from maildefer.intake.process_options import ProcessOptions

if TYPE_CHECKING:
    import argparse


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessOptions(ProcessOptions):
    """One process's; `docs/operating.md` tells what they are for."""

    tls_certificate: str = ""
    tls_key: str = ""
    tls_required: bool = False
    auth_file: str = ""
    auth_check: str = ""
    auth_required: bool = False
    proxy_networks: str = ""
    xclient_networks: str = ""


_HELP: Final = {
    "tls_certificate": "a PEM file with the certificate and its chain: STARTTLS is offered; read again at HUP",
    "tls_key": "a PEM file with its key, where that is not in the certificate's",
    "tls_required": "take nothing without encryption",
    "auth_file": "names and hashed passwords, as `maildefer passwd` writes them: AUTH is offered once it is encrypted",
    "auth_check": "MODULE.FUNCTION, called with a name and a password in a process of its own, instead of a file",
    "auth_required": "take no mail from who has not given a name and its password",
    "proxy_networks": "whose connections begin with the PROXY protocol, version 1 or 2",
    "xclient_networks": "who may say by XCLIENT and XFORWARD for whom it speaks",
}
NAMES: Final = frozenset(_HELP)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """An option for each."""
    for name, text in _HELP.items():
        option = f"--{name.replace('_', '-')}"
        if name.endswith("_required"):
            parser.add_argument(option, action="store_true", help=text)
        else:
            parser.add_argument(option, default="", metavar="TEXT", help=text)


def given(parsed: argparse.Namespace) -> dict[str, Any]:
    """What the command line says of them, to make an instance of."""
    return {name: getattr(parsed, name) for name in NAMES}
