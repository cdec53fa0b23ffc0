"""Mail that handlers send: to a relay or to the servers of the recipients' domains.

relay           `Relay`, what handlers and settings name
kept_relay      a relay that keeps its connections for the next message; with kept_connections and connection
queued          puts messages into a queue in the place of sending them
sent_message    one message over all attempts: its Message-ID, and the recipients that have taken it
smtp_delivery   one message to one or more servers, recipient by recipient
mx              the servers of a domain (RFC 5321, section 5.1)
refusals        the errors that a handler sees when a server refuses
wire_message    the bytes of a message as they go over the wire
stamps          `Date` and `Message-ID` for messages without them, and the fields of an answer
answer          which message a response answers, and how it names it
dkim_signature  signatures of what is made here (RFC 6376)

Imports point down: kept_relay > kept_connections > connection, relay > queued > sent_message, smtp_delivery, mx,
wire_message > stamps, dkim_signature > answer, refusals.
"""
