"""Command lines that show what a command is mostly used for, and when."""

from __future__ import annotations

from typing import Final

EXAMPLES: Final[dict[str, tuple[tuple[str, str], ...]]] = {
    "new": (
        ("a project with a handler, tests and units for systemd", "maildefer new shop"),
        ("the files that a newer version would write", "maildefer new shop --force"),
    ),
    "supervise": (
        ("in the foreground, eight workers and the front end", "maildefer supervise --workers 8 --intake"),
        ("until nothing is left to do", "maildefer supervise --drain"),
    ),
    "start": (
        ("the front end of conf/boot.py", "maildefer start"),
        ("a receiver of a queue beside it", "maildefer start --boot conf.queue --pid run/queue.pid"),
    ),
    "log": (("keep what an application sends to port 8825 in run/log", "maildefer log --port 8825"),),
    "stop": (
        ("everything of this project, on all hosts", "maildefer stop --all run/"),
        (
            "only this host's, killed after ten seconds",
            "maildefer stop --all run/ --this-host --force --timeout 10",
        ),
    ),
    "status": (
        ("all of this host and of those that share the queues", "maildefer status"),
        ("for a program", "maildefer status --json"),
        ("what each key of that means, as JSON Schema", "maildefer status --json-schema"),
    ),
    "top": (("this project's pools and queues", "maildefer top"), ("one queue", "maildefer top run/queue")),
    "web": (
        ("on this host: open the address that it prints", "maildefer web"),
        ("for others of its group, through a socket file", "maildefer web --socket run/web.sock --mode 660"),
        (
            "behind a proxy that speaks HTTPS",
            "maildefer web --token-file /etc/maildefer/web-token --name mail.example",
        ),
    ),
    "probe": (("whether messages are taken now", "maildefer probe --ready"),),
    "pause": (
        ("one queue, on all hosts", "maildefer pause run/queue"),
        ("a whole pool, on the host that status calls so", "maildefer pause --host web1-0a1b2c"),
    ),
    "resume": (("all queues of the project", "maildefer resume"),),
    "reload": (
        (
            "try settings and handlers, then let all hosts load them",
            "maildefer reload --check && maildefer reload --all-hosts",
        ),
    ),
    "periodic list": (("when each task runs next", "maildefer periodic list"),),
    "periodic run": (("one call now", "maildefer periodic run nightly_report"),),
    "periodic pause": (("no more calls, on any host", "maildefer periodic pause nightly_report"),),
    "periodic resume": (("calls from the next instant on", "maildefer periodic resume nightly_report"),),
    "push": (
        ("one message", "maildefer push run/queue --recipient post@blog.example letter.eml"),
        ("all of a mailbox, tonight", "maildefer push run/queue --mbox old.mbox --at 2027-01-31T22:00+01:00"),
    ),
    "queue list": (
        ("the twenty oldest", "maildefer queue list run/queue -n 20"),
        ("what was handled, and is kept", "maildefer queue list run/queue --in kept"),
        ("what waits for one domain", "maildefer queue list run/queue --in waiting --recipient @big.example"),
    ),
    "queue shape": (
        ("which domains what is deferred is for", "maildefer queue shape run/outgoing --in deferred"),
        ("who sends so much", "maildefer queue shape run/queue --senders"),
    ),
    "queue show": (("the message as it was pushed", "maildefer queue show run/queue 1764338400.M12"),),
    "queue count": (("how many are deferred", "maildefer queue count run/queue --in deferred"),),
    "queue requeue": (
        ("all dead letters of the last hour", "maildefer queue requeue run/queue --newer-than 1h"),
    ),
    "queue release": (
        ("all of one domain at once", "maildefer queue release run/outgoing --recipient @big.example"),
    ),
    "queue hold": (("what one sender has sent", "maildefer queue hold run/queue --sender eve@spam.example"),),
    "queue unhold": (("all of it", "maildefer queue unhold run/queue --all"),),
    "queue move": (
        ("what has waited for long", "maildefer queue move run/queue --to run/slow --older-than 2h"),
    ),
    "queue reschedule": (
        ("all of them in the morning", "maildefer queue reschedule run/queue --all --at 2027-02-01T06:00Z"),
    ),
    "queue delete": (
        ("what one sender has sent", "maildefer queue delete run/queue --sender eve@spam.example"),
    ),
    "queue clear": (("all that wait, unasked", "maildefer queue clear run/queue --yes"),),
    "dead list": (("those of one reason", "maildefer dead list run/queue --reason 'no route'"),),
    "dead show": (("with traceback and message", "maildefer dead show run/queue 1764338400.M12"),),
    "dead requeue": (("after the cause is mended", "maildefer dead requeue run/queue --reason KeyError"),),
    "dead edit": (("mend a recipient or a header", "maildefer dead edit run/queue 1764338400.M12"),),
    "dead delete": (("those of last month", "maildefer dead delete run/queue --older-than 30d"),),
    "replay": (
        (
            "what was handled in the last two hours would do this",
            "maildefer replay run/queue --since 2h --dry-run",
        ),
        ("do it", "maildefer replay run/queue --since 2h --recipient orders@shop.example"),
    ),
    "explain": (
        ("all that is known of one", "maildefer explain 1764338400.M12"),
        (
            "what became of today's mail for one address",
            "maildefer explain --recipient ann@a.example --since 1d",
        ),
    ),
    "audit": (
        ("begin to keep a journal", "maildefer audit --on run/queue run/posts"),
        ("prove from it that nothing was lost", "maildefer audit run/queue run/posts"),
    ),
    "routes": (("which handlers would get this mail", "maildefer routes --test post@blog.example"),),
    "send": (
        (
            "to the front end of this project",
            "maildefer send --port 8823 --to post@blog.example --subject Hello --body World",
        ),
    ),
    "sendmail": (
        (
            "as programs call sendmail(8)",
            "maildefer sendmail -i -f me@here.example post@blog.example < letter",
        ),
    ),
    "outgoing": (
        ("what waits for which destination", "maildefer outgoing"),
        ("when a server is back", "maildefer outgoing --retry example.org"),
    ),
    "passwd": (("asks for the password", "maildefer passwd run/passwords alice"),),
    "cleanse": (("an mbox as a Maildir", "maildefer cleanse inbox.mbox clean/"),),
    "blast": (("to the front end of this project", "maildefer blast old.mbox --port 8823"),),
    "doctor": (
        ("before a mount is used", "maildefer doctor /mnt/mail"),
        ("and what a front end of another user may do there", "maildefer doctor run/queue --user mailfront"),
    ),
    "permissions": (
        ("print the commands, then give the rights", "maildefer permissions run/queue --user mailfront"),
    ),
    "man": (("for man(1)", "maildefer man /usr/local/share/man/man1"),),
}
"""By a command's path without `maildefer`: what an example is for, and its command line."""
