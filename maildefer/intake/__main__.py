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
    startup.ensure_no_new_privileges()
    startup.raise_descriptor_limit(options.max_connections)
    try:
        security = AccessSecurity(options)
        if options.user or options.group:
            from maildefer.host.privileges import drop_privileges  # ctypes, and only here

            _load(security)  # while its files can still be read
            set_title(f"intake {options.queue}")  # which the kernel forbids once privileges are dropped
            drop_privileges(options.user, options.group)
        closing = (*(each.fd for each in options.sockets), *options.inherited_fds)
        link = process.fork(options.queue, options, hostname=options.hostname, closing=closing)
        set_title(f"intake {options.queue}")
        in_order = _serve(options, link, security)
    except ConfigurationError as fault:
        print(f"maildefer.intake: {fault}", file=sys.stderr)
        return 78
    except (MaildeferError, OSError) as fault:
        print(f"maildefer.intake: {fault}", file=sys.stderr)
        return 1
    return 0 if in_order else 1


def _serve(options: IntakeOptions, link: WriterLink, security: AccessSecurity) -> bool:
    """Import asyncio last: the writer does without it, and without a certificate it does without ssl."""
    serve = _load(security)
    return startup.run(serve(options, link, security))


def _load(
    security: AccessSecurity,
) -> Callable[[IntakeOptions, WriterLink, AccessSecurity], Coroutine[Any, Any, bool]]:
    if security.certificate is None:
        startup.leave_out_ssl()
    from maildefer.intake.server import serve

    return serve


if __name__ == "__main__":
    sys.exit(main())
