"""Two queues, the second one for calls of tasks, and one that programs read."""

queues = {"run/queue": ["workers.shop"], "run/work": ["workers.shop"], "run/kept": []}
