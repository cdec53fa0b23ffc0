"""`python -m maildefer.intake.http --socket-fd N --queue NAME=DIR --token-file FILE`: see `--help`."""

from __future__ import annotations

import asyncio
import sys
from importlib.util import find_spec

from maildefer import events
from maildefer.errors import ConfigurationError, MaildeferError
from maildefer.host.linux.process_title import set_title
from maildefer.intake import startup
from maildefer.intake.http.api_tokens import ApiTokens
from maildefer.intake.http.options import HttpOptions, parse
from maildefer.intake.writer import process
from maildefer.intake.writer.shared_memory import WriterLink


def main() -> int:
    """0 after TERM; 78 for what the options name and can't be used, 1 for a queue or socket that can't."""
    options = parse()
    events.configure(options.log_format, log_file=options.log_file, level=options.log_level)
    startup.ensure_no_new_privileges()
    startup.raise_descriptor_limit(options.max_connections)
    try:
        if find_spec("aiohttp") is None:
            raise ConfigurationError("taking messages by HTTP needs aiohttp: install maildefer[web]")
        from maildefer.intake.http.server import serve  # aiohttp; while its files can still be read

        tokens = ApiTokens(options.token_file)
        if options.user or options.group:
            from maildefer.host.privileges import drop_privileges  # ctypes, and only here

            set_title("web")
            drop_privileges(options.user, options.group)
        links = _fork_writers(options)
        set_title(f"web {' '.join(options.queues)}")
        in_order = asyncio.run(serve(options, links, tokens))
    except ConfigurationError as fault:
        print(f"maildefer.intake.http: {fault}", file=sys.stderr)
        return 78
    except (MaildeferError, OSError) as fault:
        print(f"maildefer.intake.http: {fault}", file=sys.stderr)
        return 1
    return 0 if in_order else 1


def _fork_writers(options: HttpOptions) -> dict[str, WriterLink]:
    """Fork a writer for each queue; none inherits another's link."""
    links: dict[str, WriterLink] = {}
    for name, path in options.queues.items():
        sockets = (*options.socket_fds, *(link.socket.fileno() for link in links.values()))
        closing = (*sockets, *options.inherited_fds)
        links[name] = process.fork(path, options, hostname=options.hostname, closing=closing)
    return links


if __name__ == "__main__":
    sys.exit(main())
