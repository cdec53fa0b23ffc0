"""Two queues, the second one for calls of tasks, and one that programs read."""

middleware = ["workers.hooks.noting"]
queues = {"run/queue": ["workers.shop"], "run/work": ["workers.shop"], "run/kept": []}
