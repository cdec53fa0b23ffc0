"""The front end: takes mail by SMTP, LMTP or HTTP and puts it into a queue, nothing else (I11).

A process of its own, executed as `python -m maildefer.intake` by the process that holds the listening socket.
It knows the queue on disk and the envelope, and never the handlers: which recipients there are it is told as data.

    server             starts, reloads and ends the process
    startup            file descriptors, early signals and the event loop of the process
    options            its command line; process_options: the part that all front ends share
    settings           what settings and boot modules may say, as a command line
    limits             all limits with their defaults
    context            what all connections of the process share
    listening_sockets  which socket speaks what; listeners: from a listening socket to a session
    accept_loop        accepts connections, also when the process may open no more files
    client             the client of one connection
    connection_table   connections counted over all processes, in shared memory
    replies            what a client is told
    status_report      what `status` shows of the process
    smtp/              the SMTP and LMTP dialogue
    access/            who may connect, authenticate, and send to whom
    writer/            the process that writes to the queue, and its client
    http/              the same front end by HTTP

A message: smtp/connection > smtp/session > smtp/incoming_message > writer/client > writer/process > maildir/push.
Imports point down: server > listeners > smtp, http > context > access > writer > limits, replies, client.
"""
