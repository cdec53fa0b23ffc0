"""Between the bytes of a message and a tree of parts whose headers and bodies are decoded (RFC 5322, RFC 2045 ff.).

parser              bytes to `MailBase`
canonical           `MailBase` to bytes; wire_form: what was not changed, as it came
mail                `MailBase`, a message or a part of one
header_access       headers by name, for requests and responses
headers             header values between the wire and text (RFC 2047, RFC 2231)
content_headers     Content-Type and its like; parameters: their parameters
transfer_encoding   bodies between the wire and bytes
charsets            text out of bytes of a wrong or missing charset; charset_detection guesses it
mime_part           the standard library's classes, adapted
authentication_results  the header field of that name (RFC 8601)

Imports point down: parser > canonical > mime_part > transfer_encoding > header_access, mail > content_headers >
headers, wire_form > charsets, parameters > charset_detection, authentication_results.
"""
