"""One queue, two hosts on it."""

queues = {"run/queue": ["workers.chaos"]}
