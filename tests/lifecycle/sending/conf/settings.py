"""Handlers that send, and what becomes of what they send; workers may die often."""

queues = {"run/queue": ["workers.front"], "run/outgoing": ["workers.out"]}
relay_config = {"queue": "run/outgoing"}
max_crashes = 50
