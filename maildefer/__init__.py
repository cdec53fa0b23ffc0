"""maildefer: a distributed worker pool over a shared Maildir.

Public are the names in `__all__` of this package and of the public modules below; everything else may change with any
version. The names of this package are those that most programs need: each is imported at its first use, so that
`import maildefer` costs nothing. `__version__` is the version, as a text.

Public modules:

    routing      routes, decorators, outcomes and state stores, for handler modules
    mail         the messages that handlers get and send
    queue        a queue in any program: push, pop, consume
    server       the relay, and the front ends and receivers of boot modules
    view         messages made from templates
    bounce       bounces: a decorator, and what a bounce says
    confirm      confirmations: messages that wait until their sender has answered
    delivery     delivery to users' Maildirs, and forwarding
    tasks        functions as deferred work
    middleware   what context managers around handlers are given
    django       Django's mail into the outgoing queue
    policy       the client that a policy is asked about
    testing      helpers for an application's tests
    pytest_plugin   the fixture of these tests, by which the project's queues are handled at once
    encoding     messages between bytes and decoded parts
    utils        settings, and the steps of starting a server
    logs         handlers' log lines in a logging configuration of one's own
    errors       every error that is raised
    handlers     ready handler modules
    commands     the command line as one object

Private:

    cli/         the command line
    monitoring/  health and metrics by HTTP, in a process of its own
    control/     status, stop and audit, from outside of a pool
    pool/        the processes of one host
    intake/      the front end, which only enqueues
    handling/    from a message to handlers, and their results to one outcome
    message/     messages: envelope, MIME, what is sent
    matching/    from an address to its routes, within a time limit
    doctor/      checks of mounts and set-ups
    host/        what the operating system of one host offers
    maildir/     the queue on disk
    skeleton/    the project that `maildefer new` writes
    events       the events of the log, of which event_table has all; log_context: what a line is about
    crash_points, simulated_pool   for `testing` and `pytest_plugin`: deaths of a worker, a queue with a clock
    storage_faults  what the filesystem refuses, as errors; the base of all errors; queue_errors: of queues and entries
    untrusted    small files of unknown content; digest, units, backoff, version: small things that all use

Imports point down: cli, monitoring > the public modules > control > pool > intake > handling > message > matching >
doctor > host > maildir > logs > events, log_context > errors and the small modules.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from maildefer.errors import MaildeferError as MaildeferError
    from maildefer.mail import MailRequest as MailRequest
    from maildefer.mail import MailResponse as MailResponse
    from maildefer.queue import Queue as Queue
    from maildefer.routing import Defer as Defer
    from maildefer.routing import Reject as Reject
    from maildefer.routing import Router as Router
    from maildefer.routing import route as route
    from maildefer.routing import route_like as route_like
    from maildefer.routing import stateless as stateless
    from maildefer.tasks import task as task
    from maildefer.version import VERSION as __version__

_HOMES = {
    "Queue": "queue",
    "MailRequest": "mail",
    "MailResponse": "mail",
    "Router": "routing",
    "route": "routing",
    "route_like": "routing",
    "stateless": "routing",
    "Defer": "routing",
    "Reject": "routing",
    "task": "tasks",
    "MaildeferError": "errors",
}
__all__ = ["__version__", *_HOMES]


def __getattr__(name: str) -> object:
    if name == "__version__":
        from maildefer.version import VERSION

        return VERSION
    if name in _HOMES:
        return getattr(importlib.import_module(f"maildefer.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'maildefer' has no attribute {name!r}")
