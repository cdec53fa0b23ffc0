"""The SMTP and LMTP dialogue (RFC 5321, RFC 2033) and its extensions.

    connection         the asyncio protocol: lines in, replies out, TLS
    line_buffer        unread input, cut into lines
    session            one method for each command; lmtp: the same for LMTP
    data_commands      DATA and BDAT; body: reads the bytes of a message
    transaction        one message: its envelope, its way to the writer, and what became of it
    syntax             paths and parameters
    auth               AUTH; sasl: its mechanisms
    xclient            XCLIENT and XFORWARD; proxy_protocol: the PROXY header
    timeouts           how long a client may take; error_limits: how many errors it may make
    mail_loops         finds mail loops by trace lines

Imports point down: lmtp > session > auth, xclient, data_commands > connection, transaction > body and all others.
"""
