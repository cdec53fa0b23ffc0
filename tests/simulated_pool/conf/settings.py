"""Two queues, the second one for calls of tasks, one that programs read, and one for mail that goes out."""

middleware = ["workers.hooks.noting"]
queues = {
    "run/queue": ["workers.shop"],
    "run/work": ["workers.shop"],
    "run/kept": [],
    "run/outgoing": ["maildefer.handlers.outgoing"],
}
relay_config = {"queue": "run/outgoing"}
