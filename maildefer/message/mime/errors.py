"""Errors of message coding."""

from __future__ import annotations

from maildefer.errors import MaildeferError


class EncodingError(MaildeferError):
    """A message that cannot be decoded, or cannot be written in canonical form."""
