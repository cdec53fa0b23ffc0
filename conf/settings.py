"""All settings of this project, as plain Python names.

The command line comes before them, then `MAILDEFER_*` variables.
"""

from __future__ import annotations

# Where the front end listens for mail (`maildefer start`).
receiver_config = {"host": "127.0.0.1", "port": 8823}

# Where answers go, as `settings.relay`: into this queue, once the handler that sends them has returned.
relay_config = {"queue": "run/outgoing"}

# What stands in parentheses in a route, as regular expressions.
router_defaults = {"host": r"[a-z0-9.-]+", "post_name": r"[a-z0-9][a-z0-9_-]*"}

# Jinja2 templates of answers, for `maildefer.view`: the folder workers/templates.
template_config = {"dir": "workers", "module": "templates"}

# The front end's queue, and who handles what is in it.
handlers = ["workers.posting"]

# The queue of the work that can wait; these two names are read by conf/queue.py.
queue_config = {"queue": "run/posts", "sleep": 10}
queue_handlers = ["workers.index"]

# What `maildefer supervise` serves, in order of priority.
queues = {
    "run/queue": handlers,
    "run/posts": queue_handlers,
    "run/outgoing": ["maildefer.handlers.outgoing"],
}

# Where mail of the queue run/outgoing is delivered: the development sink (`maildefer log`), or your mail server; None:
# by MX.
outgoing_config = {"host": "127.0.0.1", "port": 8825}

# Who has sent what can't be delivered gets a report, by that queue; what a handler rejects is not reported.
notices = {"queue": "run/outgoing"}

# The least level of what the log shows of handlers' own lines; "info" leaves out `logging.debug`.
log_level = "debug"
