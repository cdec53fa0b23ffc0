"""The error by which a handler chooses the SMTP reply."""

from __future__ import annotations

from maildefer.errors import MaildeferError
from maildefer.message.enhanced_status import CLASSES, SUBJECTS


class SMTPError(MaildeferError):
    """Raised by a handler: 4yz defers the message, 5yz buries it.

    With no message, the text is what RFC 3463 calls the class and the subject of the code's first two digits.
    """

    def __init__(self, code: int, message: str | None = None) -> None:
        self.code = code
        self.message = message or self.error_for_code(code)
        super().__init__(f"{code} {self.message}")

    @staticmethod
    def error_for_code(code: int) -> str:
        """The RFC's names for the first two digits of a code; unknown digits are left out."""
        names = (CLASSES.get(code // 100 % 10), SUBJECTS.get(code // 10 % 10))
        return " ".join(name for name in names if name)

    @property
    def is_temporary(self) -> bool:
        """Whether the message should be tried again."""
        return 400 <= self.code < 500
