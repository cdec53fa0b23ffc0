"""Two queues, the second one for calls of tasks."""

queues = {"run/queue": ["workers.shop"], "run/work": ["workers.shop"]}
