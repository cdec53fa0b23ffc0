"""One queue for messages, with a handler for each means, one for calls of a periodic task, one for what is sent."""

import os

queues = {
    "run/queue": [
        "workers.chaos",
        "workers.limited",
        "workers.gathering",
        "workers.effects",
        "workers.sending",
    ],
    "run/ticks": ["workers.ticking"],
    "run/outgoing": ["maildefer.handlers.outgoing"],
}
middleware = ["workers.sending.noted"]
relay_config = {"queue": "run/outgoing"}
outgoing_config = {"host": "127.0.0.1", "port": int(os.environ.get("CHAOS_NEXT_PORT", "25"))}
receiver_config = {"host": "127.0.0.1", "port": 0}
web_config = {"token_file": "tokens", "port": 0}
