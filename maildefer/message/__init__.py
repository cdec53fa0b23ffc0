"""A message: its envelope, what handlers get and send, and how it goes out.

    envelope          the three lines at the top of a queue file
    request           what a handler gets; attachments: the files in it
    response          what a handler sends; templates: responses made from templates
    push_bytes        what may be pushed, as bytes and envelope
    forwarding        a received message on its way to somebody else
    bounce            whether a message is a bounce, and of what
    addresses         bare addresses; smtp_error: the error by which a handler chooses an SMTP reply
    enhanced_status   the words for RFC 3463's status codes
    mbox              many messages in one stream
    mime/             between bytes and a tree of decoded parts
    outgoing/         the SMTP client side: relay, MX, what was sent to whom

Reading: request > mime/parser. Sending: response > mime/canonical > outgoing/relay.
Imports point down: outgoing, templates > forwarding, response, push_bytes > request > mime, envelope, addresses.
"""
