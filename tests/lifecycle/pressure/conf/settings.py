"""One queue, whose handlers misbehave."""

queues = {"run/queue": ["workers.pressing"]}
router_defaults = {"what": "[a-z]+", "argument": "[0-9.]*"}
