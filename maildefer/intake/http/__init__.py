"""The front end by HTTP: `POST /queues/NAME` puts a message into a queue. Needs `maildefer[web]`.

A process of its own, executed as `python -m maildefer.intake.http` by the supervisor, which holds the listening socket.
Behind it are the same writers as behind SMTP, one for each queue: pushes share directory syncs.

    server          starts, reloads and ends the process
    service         aiohttp's server behind the admission; `maildefer.monitoring` uses it too
    options         its command line and settings
    push_endpoint   the request handler
    push_headers    when an entry is due, and by which key a request is known again
    admission       which connections are let in; time limits before a request
    api_tokens      which token may push to which queue
    access_log      aiohttp's log records as events
    unparsable      requests that aiohttp can't read

Imports point down: server > push_endpoint > service > unparsable > admission > options, api_tokens, access_log,
push_headers.
"""
