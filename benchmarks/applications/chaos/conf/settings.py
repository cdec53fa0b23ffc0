"""One queue for messages, with a handler for each means, and one for the calls of a periodic task."""

queues = {
    "run/queue": ["workers.chaos", "workers.limited", "workers.gathering", "workers.effects"],
    "run/ticks": ["workers.ticking"],
}
receiver_config = {"host": "127.0.0.1", "port": 0}
web_config = {"token_file": "tokens", "port": 0}
