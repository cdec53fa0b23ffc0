"""Messages between bytes and `MailBase`, a tree of parts whose headers and bodies are decoded.

`DEFAULT_ENCODING` is the charset of what is beyond ASCII. `CONTENT_ENCODING_KEYS` are the headers that
`MailBase.content_encoding` knows, and `CONTENT_ENCODING_REMOVED_PARAMS` the parameters that it leaves out.

The code is in `maildefer.message.mime.mail`, `maildefer.message.mime.parser` (from bytes),
`maildefer.message.mime.canonical` (to bytes), `maildefer.message.mime.headers`,
`maildefer.message.mime.content_headers`, `maildefer.message.mime.parameters`, `maildefer.message.mime.charsets` and
`maildefer.message.mime.mime_part`; the error is in `maildefer.errors`.
"""

from __future__ import annotations

from maildefer.errors import EncodingError
from maildefer.message.mime.canonical import to_file, to_message, to_string
from maildefer.message.mime.charsets import attempt_decoding, guess_encoding_and_decode
from maildefer.message.mime.content_headers import (
    CONTENT_ENCODING_KEYS,
    CONTENT_ENCODING_REMOVED_PARAMS,
    ContentEncoding,
)
from maildefer.message.mime.headers import (
    DEFAULT_ENCODING,
    VALUE_IS_EMAIL_ADDRESS,
    apply_charset_to_header,
    header_from_mime_encoding,
    header_to_mime_encoding,
    normalize_header,
    properly_decode_header,
    properly_encode_header,
)
from maildefer.message.mime.mail import MailBase
from maildefer.message.mime.mime_part import MIMEPart
from maildefer.message.mime.parameters import parse_parameter_header
from maildefer.message.mime.parser import from_file, from_message, from_string

__all__ = [
    "CONTENT_ENCODING_KEYS",
    "CONTENT_ENCODING_REMOVED_PARAMS",
    "DEFAULT_ENCODING",
    "VALUE_IS_EMAIL_ADDRESS",
    "ContentEncoding",
    "EncodingError",
    "MIMEPart",
    "MailBase",
    "apply_charset_to_header",
    "attempt_decoding",
    "from_file",
    "from_message",
    "from_string",
    "guess_encoding_and_decode",
    "header_from_mime_encoding",
    "header_to_mime_encoding",
    "normalize_header",
    "parse_parameter_header",
    "properly_decode_header",
    "properly_encode_header",
    "to_file",
    "to_message",
    "to_string",
]
