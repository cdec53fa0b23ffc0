"""The listening sockets of a front end, bound here or passed on by systemd, each with its protocol.

An address is `KIND://HOST:PORT`, `KIND:PATH` for a socket file, or `KIND:systemd` and `KIND:systemd:NAME` for sockets
of the unit (`FileDescriptorName=`); KIND is smtp, smtps or lmtp.
"""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Final, NamedTuple

from maildefer.errors import ConfigurationError
from maildefer.intake.options import SocketProtocol, address_text

_BACKLOG: Final = 512
_FIRST_PASSED: Final = 3  # sd_listen_fds(3)
_SYSTEMD: Final = "systemd"


class SmtpListener(NamedTuple):
    """A bound socket and its protocol."""

    socket: socket.socket
    kind: SocketProtocol

    @property
    def option(self) -> str:
        """The value of `--socket-fd` for an intake process, which inherits it."""
        return f"{self.socket.fileno()}:{self.kind}"

    def __str__(self) -> str:
        return address_text(self.kind, self.socket.getsockname())


class WebListener(NamedTuple):
    """A bound socket for HTTP."""

    socket: socket.socket

    @property
    def option(self) -> str:
        return str(self.socket.fileno())

    def __str__(self) -> str:
        return address_text("http", self.socket.getsockname())


def listen_web(host: object, port: object) -> WebListener:
    """Bind `web_config`'s host and port. Raises ConfigurationError."""
    if not isinstance(port, int):
        raise ConfigurationError(f"web_config: port is {port!r}: give a number")
    return WebListener(bound(str(host), port))


def listen(
    addresses: Iterable[str],
    *,
    folder: str = "",
    mode: int | None = None,
    environment: Mapping[str, str] = os.environ,
) -> list[SmtpListener]:
    """Bind all addresses; `folder` and `mode` are for socket files. Raises ConfigurationError, and leaves none open."""
    found: list[SmtpListener] = []
    try:
        for address in addresses:
            kind, rest = _split(address)
            if rest.startswith("//"):
                found.append(SmtpListener(bound(*_host_and_port(rest[2:], address)), kind))
            elif rest.partition(":")[0] == _SYSTEMD:
                passed_on = passed_sockets(rest.partition(":")[2], environment)
                found += [SmtpListener(each, kind) for each in passed_on]
            else:
                found.append(SmtpListener(bound_file(os.path.join(folder, rest), mode), kind))
    except BaseException:
        for each in found:
            each.socket.close()
        raise
    if not found:
        raise ConfigurationError("no address to listen on: give one such as smtp://127.0.0.1:8825")
    return found


def bound(host: str, port: int) -> socket.socket:
    """Bind an address, and listen. Raises ConfigurationError for one in use, or of another host."""
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=_BACKLOG)
    except (OSError, OverflowError) as fault:
        raise ConfigurationError(
            f"can't listen on {host}:{port}: {getattr(fault, 'strerror', None) or fault}: stop what does, or choose "
            "another port"
        ) from fault


def bound_file(path: str, mode: int | None = None) -> socket.socket:
    """Bind a socket file, and listen; one that no process listens on is replaced.

    Its folder, such as `run/`, is made, but none above it.

    Raises ConfigurationError.
    """
    listener = socket.socket(socket.AF_UNIX)
    try:
        with socket.socket(socket.AF_UNIX) as trial:
            if trial.connect_ex(path) == 0:
                raise OSError("another process listens there")
        with suppress(FileNotFoundError):
            if not stat.S_ISSOCK(os.lstat(path).st_mode):
                raise OSError("something else than a socket is there")
            os.unlink(path)
        with suppress(FileExistsError):
            os.mkdir(os.path.dirname(path) or ".")
        _bind(listener, path, mode)
        listener.listen(_BACKLOG)
    except OSError as fault:
        listener.close()
        remedy = "make its folder" if isinstance(fault, FileNotFoundError) else "stop what does"
        raise ConfigurationError(
            f"can't listen on {path}: {fault.strerror or fault}: {remedy}, or choose another path"
        ) from fault
    return listener


def _bind(listener: socket.socket, path: str, mode: int | None) -> None:
    """Bind with that mode from the start: a chmod of the path would follow a link that is put there meanwhile."""
    if mode is None:
        listener.bind(path)
        return
    os.fchmod(listener.fileno(), mode)  # Linux gives the file what the socket has, but for the umask
    umask = os.umask(0)
    try:
        listener.bind(path)
    finally:
        os.umask(umask)


def stop_listening(listener: socket.socket) -> None:
    """Stop listening, also for children that have inherited it; systemd's stay open, for what we may become by exec."""
    if listener.fileno() in _descriptors(os.environ):
        os.set_inheritable(listener.detach(), True)
        return
    try:
        listener.shutdown(socket.SHUT_RDWR)
    except OSError:  # it was already
        pass
    listener.close()


def passed_sockets(name: str, environment: Mapping[str, str]) -> list[socket.socket]:
    """Take the sockets that systemd bound for this very process, all or those of a name. Raises ConfigurationError."""
    descriptors = _descriptors(environment)
    if not descriptors:
        raise ConfigurationError(
            "no socket was passed to this process by systemd: it takes a .socket unit, and a service that is not put "
            "into the background (`maildefer start --no-daemon`, `maildefer supervise`)"
        )
    names = environment.get("LISTEN_FDNAMES", "").split(":")
    wanted = [fd for at, fd in enumerate(descriptors) if not name or names[at : at + 1] == [name]]
    if not wanted:
        raise ConfigurationError(
            f"systemd has passed no socket named {name!r} but {', '.join(names)}: see FileDescriptorName= of the unit"
        )
    found = []
    for fd in wanted:
        os.set_inheritable(fd, False)
        found.append(socket.socket(fileno=fd))
        if found[-1].type != socket.SOCK_STREAM:
            raise ConfigurationError(f"the socket {fd} of systemd is none for streams: use ListenStream=")
    return found


def _descriptors(environment: Mapping[str, str]) -> range:
    if environment.get("LISTEN_PID") != str(os.getpid()):
        return range(0)
    return range(_FIRST_PASSED, _FIRST_PASSED + int(environment.get("LISTEN_FDS", "0")))


def _split(address: str) -> tuple[SocketProtocol, str]:
    kind, colon, rest = address.partition(":")
    try:
        if not colon or not rest:
            raise ValueError
        return SocketProtocol(kind), rest
    except ValueError:
        raise ConfigurationError(
            f"can't listen on {address!r}: give smtp://HOST:PORT, smtps://HOST:PORT, lmtp:PATH or smtp:systemd:NAME"
        ) from None


def _host_and_port(text: str, address: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    if not colon or not (port.isascii() and port.isdigit()):
        raise ConfigurationError(f"can't listen on {address!r}: give a port, as in smtp://127.0.0.1:8825")
    return host.strip("[]") or "0.0.0.0", int(port)
