"""`python -m maildefer.intake --socket-fd N --queue DIR [--routes FILE]`: see `--help`."""

from __future__ import annotations

import asyncio
import sys

from maildefer import events
from maildefer.errors import ConfigurationError, MaildeferError
from maildefer.intake.options import parse
from maildefer.intake.service import serve


def main() -> int:
    """0 after TERM; 78 for a route table that can't be used, 1 for a queue or socket that can't."""
    options = parse()
    events.configure()
    try:
        asyncio.run(serve(options))
    except ConfigurationError as fault:
        print(f"maildefer.intake: {fault}", file=sys.stderr)
        return 78
    except (MaildeferError, OSError) as fault:
        print(f"maildefer.intake: {fault}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
