"""The messages that handlers get and send: `MailRequest`, `MailResponse`.

`ROUTABLE_TO_HEADER` is the header that tells the recipient where there is no envelope: "to", or for example
"Delivered-To"; it can be set. The code is in `maildefer.message.request` and `maildefer.message.response`.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import TYPE_CHECKING

from maildefer.message import request
from maildefer.message.request import MailRequest

if TYPE_CHECKING:
    from maildefer.message.response import MailResponse

    ROUTABLE_TO_HEADER: str
    """The header that names the recipient where there is no envelope; "to", or for example "Delivered-To"."""

__all__ = ["MailRequest", "MailResponse", "ROUTABLE_TO_HEADER"]


class _Mail(ModuleType):
    """Makes `mail.ROUTABLE_TO_HEADER = …` reach the code, and `MailResponse` come with its first use only.

    The setting has to live below this module, where requests are made; imports never point upwards.
    """

    @property
    def ROUTABLE_TO_HEADER(self) -> str:
        return request.ROUTABLE_TO_HEADER

    @ROUTABLE_TO_HEADER.setter
    def ROUTABLE_TO_HEADER(self, header: str) -> None:
        request.ROUTABLE_TO_HEADER = header

    @property
    def MailResponse(self) -> type[MailResponse]:
        # The e-mail package, 4.5 MB: for processes that send.
        from maildefer.message.response import MailResponse

        return MailResponse


sys.modules[__name__].__class__ = _Mail
