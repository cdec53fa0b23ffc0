"""The front end: takes mail by SMTP, LMTP or HTTP and puts it into a queue, nothing else (I11).

A process of its own, executed as `python -m maildefer.intake` by the process that holds the listening socket.
It knows the queue on disk and the envelope, and never the handlers: which recipients there are it is told as data.

    server             the process from its start to its end: signals, reloads, drain
    startup            file descriptors, early signals and the event loop of a process
    listeners          begin a session on each connection of a listening socket
    accept_loop        accepts connections, also when the process may open no more files
    socket_transport   a connected socket in the clear, on the event loop
    context            what all connections of the process share
    options            all options and limits with their defaults, and the command line
    settings           what settings and boot modules may say, as a command line
    client             the client of a connection; connection_table: connections of all processes, in shared memory
    outcomes           what became of a message, as values; replies: the same in the words of SMTP
    status_report      what `status` shows of the process; refusals: how often it has refused, by kind
    smtp/              the SMTP and LMTP dialogue
    access/            limits of connections, authentication, recipients, the policy
    writer/            the process that writes to the queue, and its client
    http/              the same front end by HTTP

A message: smtp/connection > smtp/session > smtp/transaction > writer/client > writer/process > maildir/push.
Imports point down: server > listeners, http > smtp > context, status_report > access, refusals, settings,
writer > accept_loop, options, replies > client, connection_table, outcomes, socket_transport, startup.
"""
