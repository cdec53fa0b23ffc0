"""The process: sockets, signals, and its end."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from concurrent.futures import ThreadPoolExecutor

from maildefer import events
from maildefer.errors import ConfigurationError
from maildefer.intake.accept import Acceptor
from maildefer.intake.committer import Committer
from maildefer.intake.hall import Hall
from maildefer.intake.lmtp import LmtpSession
from maildefer.intake.options import Options
from maildefer.intake.recipients import Recipients
from maildefer.intake.room import Room
from maildefer.intake.session import Session
from maildefer.maildir.layout import create_queue
from maildefer.maildir.push import Pusher
from maildefer.pool.identity import this_host

BACKLOG = 512


async def serve(options: Options) -> None:
    """Take mail until TERM, INT, or the end of the lifeline. Raises ConfigurationError, QueueError's kinds, OSError."""
    loop = asyncio.get_running_loop()
    recipients = Recipients(options.queue, options.routes_path)
    stop = asyncio.Event()
    _listen_to_signals(loop, stop, recipients, options.lifeline_fd)
    with ThreadPoolExecutor(options.threads + 1, "push") as threads:
        hall = Hall(options, _acceptor(options, threads, loop), recipients, loop)
        kind = LmtpSession if options.lmtp else Session
        sockets = [socket.socket(fileno=fd) for fd in options.socket_fds]
        servers = [
            await loop.create_server(lambda: kind(hall), sock=each, backlog=BACKLOG) for each in sockets
        ]
        addresses = " ".join(map(_address, sockets))
        events.emit("intake.listening", pid=os.getpid(), at=addresses, queue=options.queue)
        await stop.wait()
        for server in servers:
            server.close()
        await hall.drain(options.drain_seconds)


def _acceptor(options: Options, threads: ThreadPoolExecutor, loop: asyncio.AbstractEventLoop) -> Acceptor:
    layout = create_queue(options.queue)
    pusher = Pusher(layout, host=this_host().label)
    room = Room(layout, min_free_bytes=options.min_free_bytes, max_backlog=options.max_backlog)
    committer = Committer(pusher, threads, options.threads, loop)
    return Acceptor(committer, room, threads, hostname=options.hostname)


def _listen_to_signals(
    loop: asyncio.AbstractEventLoop, stop: asyncio.Event, recipients: Recipients, lifeline_fd: int | None
) -> None:
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    loop.add_signal_handler(signal.SIGINT, stop.set)
    loop.add_signal_handler(signal.SIGHUP, _read_again, recipients)
    if lifeline_fd is not None:  # our starter holds the other end: readable means that it is gone
        loop.add_reader(lifeline_fd, _cut, loop, stop, lifeline_fd)


def _cut(loop: asyncio.AbstractEventLoop, stop: asyncio.Event, lifeline_fd: int) -> None:
    loop.remove_reader(lifeline_fd)
    stop.set()


def _read_again(recipients: Recipients) -> None:
    try:
        recipients.read()
    except ConfigurationError as fault:
        events.emit("application.broken", reason=str(fault))


def _address(listener: socket.socket) -> str:
    name = listener.getsockname()
    return f"{name[0]}:{name[1]}" if isinstance(name, tuple) else str(name)
