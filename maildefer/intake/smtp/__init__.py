"""The SMTP and LMTP dialogue (RFC 5321, RFC 2033) and its extensions.

    connection         the asyncio protocol: lines in, replies out, TLS
    line_buffer        unread bytes, cut into lines
    session            one method for each command; lmtp: the same for LMTP
    data_commands      DATA and BDAT; body: the bytes of a message as they come
    transaction        one message: its envelope, its way to the writer, and what became of it
    syntax             paths and parameters
    auth               AUTH; sasl: its mechanisms
    xclient            XCLIENT and XFORWARD; proxy_protocol: the PROXY header
    timeouts           how long a client may take; error_limits: how many errors it may make
    mail_loops         finds messages that go around in circles

Imports point down: lmtp > session > auth, xclient, data_commands > transaction, connection > body.
"""
