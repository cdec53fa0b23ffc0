"""`python -m maildefer.intake --socket-fd N --queue DIR [--routes FILE]`: see `--help`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Coroutine
from typing import Any

from maildefer import events
from maildefer.errors import ConfigurationError, MaildeferError
from maildefer.host.linux.process_title import set_title
from maildefer.intake import startup
from maildefer.intake.access.security import AccessSecurity
from maildefer.intake.options import IntakeOptions, parse
from maildefer.intake.writer import process
from maildefer.intake.writer.shared_memory import WriterLink


def main() -> int:
    """0 after TERM; 78 for what the options name and can't be used, 1 for a queue or socket that can't."""
    options = parse()
    events.configure(options.log_format, log_file=options.log_file, level=options.log_level)
    startup.gain_nothing()
    startup.raise_descriptor_limit(options.max_connections)
    try:
        guard = AccessSecurity(options)
        if options.user or options.group:
            from maildefer.host.privileges import drop  # ctypes, and only here

            _load(guard)  # from where whom we become may not come to
            set_title(f"intake {options.queue}")  # the kernel does not let who has dropped privileges
            drop(options.user, options.group)
        closing = (*(each.fd for each in options.sockets), *options.inherited_fds)
        link = process.fork(options.queue, options, hostname=options.hostname, closing=closing)
        set_title(f"intake {options.queue}")
        in_order = _serve(options, link, guard)
    except ConfigurationError as fault:
        print(f"maildefer.intake: {fault}", file=sys.stderr)
        return 78
    except (MaildeferError, OSError) as fault:
        print(f"maildefer.intake: {fault}", file=sys.stderr)
        return 1
    return 0 if in_order else 1


def _serve(options: IntakeOptions, link: WriterLink, guard: AccessSecurity) -> bool:
    """What takes asyncio is imported last: the writer has no use for it, and its ssl has none without a certificate."""
    serve = _load(guard)
    return startup.run(serve(options, link, guard))


def _load(
    guard: AccessSecurity,
) -> Callable[[IntakeOptions, WriterLink, AccessSecurity], Coroutine[Any, Any, bool]]:
    if guard.certificate is None:
        startup.leave_out_ssl()
    from maildefer.intake.server import serve

    return serve


if __name__ == "__main__":
    sys.exit(main())
