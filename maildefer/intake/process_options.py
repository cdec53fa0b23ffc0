"""What the process of any front end is told of itself: its name, whom it becomes, where its log and its report go."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from maildefer.intake import connection_table
from maildefer.intake.connection_table import ALONE, TableRow
from maildefer.intake.limits import Limits

if TYPE_CHECKING:
    import argparse

_NAMES: Final = ("report_fd", "guestbook", "user", "group", "log_level", "log_format", "log_file")


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessOptions(Limits):
    """One process's, by SMTP, LMTP or HTTP."""

    hostname: str = ""
    report_fd: int | None = None
    guestbook: TableRow = ALONE
    user: str = ""
    group: str = ""
    log_level: str | None = None
    log_format: str | None = None
    log_file: str | None = None

    @property
    def told_fds(self) -> tuple[int, ...]:
        """By which its starter and its siblings hear of it; none of its writer's business."""
        return tuple(fd for fd in (self.report_fd, self.guestbook.descriptor) if fd is not None and fd >= 0)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """An option for each, but `hostname`, which means different things."""
    add = parser.add_argument
    add("--report-fd", type=int, help="an inherited file: what `maildefer status` shows is written to it")
    add(
        "--guestbook",
        type=connection_table.parse_row,
        default=ALONE,
        metavar="FD:NUMBER:ROWS",
        help="an inherited file in memory, in which the processes of a front end count their connections together",
    )
    add("--user", default="", help="become this user, a name or a number, for good before anything else")
    add("--group", default="", help="become this group; else the user's own and its supplementary ones")
    add("--log-level", help="debug, info, warning or error")
    add("--log-format", help="console, logfmt or json")
    add("--log-file", metavar="PATH", help="append the log there, and open it anew on USR1")


def given(parsed: argparse.Namespace) -> dict[str, Any]:
    """What the command line says of them, to make an instance of."""
    return {
        "hostname": parsed.hostname or os.uname().nodename,
        **{name: getattr(parsed, name) for name in _NAMES},
    }
