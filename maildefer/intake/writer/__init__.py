"""The process that writes received messages to the queue, and the front end's client of it.

Only the writer touches the queue's filesystem, so that a mount that hangs holds up no connection.

    client           awaitable pushes, in the front end
    lines            the sockets to the writer's threads
    protocol         the frames between both
    batcher          when messages are sent to the writer, and how many in a batch
    shared_memory    memory for messages that are too large for the socket
    process          the writer
    drafts           large messages, written to `tmp/` as their parts come
    once             messages that are pushed once, however often they come
    capacity         whether the queue can take more messages

A message: client > batcher > protocol, shared_memory > lines > process > drafts > maildir/push.
Imports point down: client, process > batcher, lines, drafts, once, capacity > protocol > shared_memory.
"""
