"""Two queues with a batch handler each; the first also has a handler for single messages."""

queues = {"run/queue": ["workers.front"], "run/later": ["workers.back"]}
router_defaults = {"what": "[a-z]+", "argument": "[0-9.]*"}
