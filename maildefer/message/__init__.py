"""A message: its envelope, what handlers get and send, and how it goes out.

    envelope          the three lines at the top of a queue file
    request           what a handler gets, and the bytes and envelope of what may be pushed; attachments: its files
    dsn/              what the sender asks of reports; notices/: the reports
    once              what a message has done already
    response          what a handler sends; templates: responses made from templates
    bounce            whether a message is a bounce, and of what
    automatic         what no program may answer
    authentication    what the mail server in front says of the author
    origin            where a message is from, as the journal notes it
    addresses         bare addresses; smtp_error: the error by which a handler chooses an SMTP reply
    enhanced_status   the words for RFC 3463's status codes
    mbox              many messages in one stream; safe_maildir: the standard library's Maildir, with other names
    mime/             between bytes and a tree of decoded parts
    outgoing/         the SMTP client side: relay, MX, what was sent to whom

Reading: request > mime/parser. Sending: response > mime/canonical > outgoing/relay.
Imports point down: outgoing, templates, notices > response > request > attachments, bounce, automatic,
authentication > addresses > mime > origin > once, envelope, smtp_error, mbox,
safe_maildir, dsn > enhanced_status.
"""
