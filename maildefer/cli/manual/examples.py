"""Command lines that show what a command is mostly used for, and when."""

from __future__ import annotations

from itertools import groupby
from typing import Final

_WITH_SUBCOMMANDS: Final = ("queue", "dead", "periodic")
# What it is for, and the command line; those of one command together.
_EXAMPLES: Final = (
    ("a project with a handler, tests and units for systemd", "maildefer new shop"),
    ("the files that a newer version would write", "maildefer new shop --force"),
    ("in the foreground, eight workers and the front end", "maildefer supervise --workers 8 --intake"),
    ("until nothing is left to do", "maildefer supervise --drain"),
    ("the front end of conf/boot.py", "maildefer start"),
    ("a receiver of a queue beside it", "maildefer start --boot conf.queue --pid run/queue.pid"),
    ("keep what an application sends to port 8825 in run/log", "maildefer log --port 8825"),
    ("everything of this project, on all hosts", "maildefer stop --all run/"),
    (
        "only this host's, killed after ten seconds",
        "maildefer stop --all run/ --this-host --force --timeout 10",
    ),
    ("all of this host and of those that share the queues", "maildefer status"),
    ("for a program", "maildefer status --json"),
    ("what each key of that means, as JSON Schema", "maildefer status --json-schema"),
    ("this project's pools and queues", "maildefer top"),
    ("one queue", "maildefer top run/queue"),
    ("on this host: open the address that it prints", "maildefer web"),
    ("for others of its group, through a socket file", "maildefer web --socket run/web.sock --mode 660"),
    (
        "behind a proxy that speaks HTTPS",
        "maildefer web --token-file /etc/maildefer/web-token --name mail.example",
    ),
    ("whether messages are taken now", "maildefer probe --ready"),
    ("one queue, on all hosts", "maildefer pause run/queue"),
    ("a whole pool, on the host that status calls so", "maildefer pause --host web1-0a1b2c"),
    ("all queues of the project", "maildefer resume"),
    (
        "try settings and handlers, then let all hosts load them",
        "maildefer reload --check && maildefer reload --all-hosts",
    ),
    ("when each task runs next", "maildefer periodic list"),
    ("one call now", "maildefer periodic run nightly_report"),
    ("no more calls, on any host", "maildefer periodic pause nightly_report"),
    ("calls from the next instant on", "maildefer periodic resume nightly_report"),
    ("one message", "maildefer push run/queue --recipient post@blog.example letter.eml"),
    ("all of a mailbox, tonight", "maildefer push run/queue --mbox old.mbox --at 2027-01-31T22:00+01:00"),
    ("the twenty oldest", "maildefer queue list run/queue -n 20"),
    ("what was handled, and is kept", "maildefer queue list run/queue --in kept"),
    ("what waits for one domain", "maildefer queue list run/queue --in waiting --recipient @big.example"),
    ("which domains what is deferred is for", "maildefer queue shape run/outgoing --in deferred"),
    ("who sends so much", "maildefer queue shape run/queue --senders"),
    ("the message as it was pushed", "maildefer queue show run/queue 1764338400.M12"),
    ("how many are deferred", "maildefer queue count run/queue --in deferred"),
    ("all dead letters of the last hour", "maildefer queue requeue run/queue --newer-than 1h"),
    ("all of one domain at once", "maildefer queue release run/outgoing --recipient @big.example"),
    ("what one sender has sent", "maildefer queue hold run/queue --sender eve@spam.example"),
    ("all of it", "maildefer queue unhold run/queue --all"),
    ("what has waited for long", "maildefer queue move run/queue --to run/slow --older-than 2h"),
    ("all of them in the morning", "maildefer queue reschedule run/queue --all --at 2027-02-01T06:00Z"),
    ("what one sender has sent", "maildefer queue delete run/queue --sender eve@spam.example"),
    ("all that wait, unasked", "maildefer queue clear run/queue --yes"),
    ("those of one reason", "maildefer dead list run/queue --reason 'no route'"),
    ("with traceback and message", "maildefer dead show run/queue 1764338400.M12"),
    ("after the cause is mended", "maildefer dead requeue run/queue --reason KeyError"),
    ("mend a recipient or a header", "maildefer dead edit run/queue 1764338400.M12"),
    ("those of last month", "maildefer dead delete run/queue --older-than 30d"),
    (
        "what was handled in the last two hours would do this",
        "maildefer replay run/queue --since 2h --dry-run",
    ),
    ("do it", "maildefer replay run/queue --since 2h --recipient orders@shop.example"),
    ("all that is known of one", "maildefer explain 1764338400.M12"),
    ("what became of today's mail for one address", "maildefer explain --recipient ann@a.example --since 1d"),
    ("begin to keep a journal", "maildefer audit --on run/queue run/posts"),
    ("prove from it that nothing was lost", "maildefer audit run/queue run/posts"),
    ("which handlers would get this mail", "maildefer routes --test post@blog.example"),
    (
        "to the front end of this project",
        "maildefer send --port 8823 --to post@blog.example --subject Hello --body World",
    ),
    ("as programs call sendmail(8)", "maildefer sendmail -i -f me@here.example post@blog.example < letter"),
    ("what waits for which destination", "maildefer outgoing"),
    ("when a server is back", "maildefer outgoing --retry example.org"),
    ("asks for the password", "maildefer passwd run/passwords alice"),
    ("an mbox as a Maildir", "maildefer cleanse inbox.mbox clean/"),
    ("to the front end of this project", "maildefer blast old.mbox --port 8823"),
    ("before a mount is used", "maildefer doctor /mnt/mail"),
    ("each push shall wait for one sync only, if that is safe", "maildefer doctor run/queue --one-sync"),
    ("and what a front end of another user may do there", "maildefer doctor run/queue --user mailfront"),
    ("print the commands, then give the rights", "maildefer permissions run/queue --user mailfront"),
    ("for man(1)", "maildefer man /usr/local/share/man/man1"),
)


def _path(example: tuple[str, str]) -> str:
    _, command, *rest = example[1].split()
    return f"{command} {rest[0]}" if command in _WITH_SUBCOMMANDS else command


EXAMPLES: Final = {path: tuple(examples) for path, examples in groupby(_EXAMPLES, _path)}
"""By a command's path without `maildefer`: what an example is for, and its command line."""
