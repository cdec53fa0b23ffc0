"""`python -m maildefer.intake --socket-fd N --queue DIR [--routes FILE]`: see `--help`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Coroutine
from typing import Any

from maildefer import events
from maildefer.errors import ConfigurationError, MaildeferError
from maildefer.host.titles import set_title
from maildefer.intake import crowd, eventloop, writer
from maildefer.intake.arena import Link
from maildefer.intake.guard import Guard
from maildefer.intake.options import Options, parse


def main() -> int:
    """0 after TERM; 78 for what the options name and can't be used, 1 for a queue or socket that can't."""
    options = parse()
    events.configure(options.log_format, log_file=options.log_file, level=options.log_level)
    crowd.prepare(options)
    try:
        guard = Guard(options)
        if options.user or options.group:
            from maildefer.host.privileges import drop  # ctypes, and only here

            _load(guard)  # from where whom we become may not come to
            set_title(f"intake {options.queue}")  # the kernel does not let who has dropped privileges
            drop(options.user, options.group)
        closing = (*options.socket_fds, options.lifeline_fd, *options.told_fds)
        link = writer.fork(options.queue, options, hostname=options.hostname, closing=closing)
        set_title(f"intake {options.queue}")
        in_order = _serve(options, link, guard)
    except ConfigurationError as fault:
        print(f"maildefer.intake: {fault}", file=sys.stderr)
        return 78
    except (MaildeferError, OSError) as fault:
        print(f"maildefer.intake: {fault}", file=sys.stderr)
        return 1
    return 0 if in_order else 1


def _serve(options: Options, link: Link, guard: Guard) -> bool:
    """What takes asyncio is imported last: the writer has no use for it, and its ssl has none without a certificate."""
    serve = _load(guard)
    return eventloop.run(serve(options, link, guard))


def _load(guard: Guard) -> Callable[[Options, Link, Guard], Coroutine[Any, Any, bool]]:
    if guard.certificate is None:
        eventloop.leave_out_ssl()
    from maildefer.intake.service import serve

    return serve


if __name__ == "__main__":
    sys.exit(main())
