"""Two queues; the handlers of the first hand on to the second."""

queues = {"run/queue": ["workers.front"], "run/later": ["workers.back"]}
router_defaults = {"what": "[a-z]+", "argument": "[0-9.]*"}
