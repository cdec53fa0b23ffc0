"""The process that writes what the front end received, and the front end's side of it.

It alone touches the queue's filesystem, so that a mount that hangs holds up no connection.

    client           awaitable pushes, in the front end
    protocol         what goes between both
    batcher          when messages go to the writer, and how many together
    shared_memory    memory for messages that are too large for the socket
    process          the writer
    drafts           large messages, written to `tmp/` while they come
    capacity         whether the queue has room for more
"""
