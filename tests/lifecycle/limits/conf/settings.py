"""A queue in which some handlers are limited, and one whose only handler is."""

queues = {"run/queue": ["workers.mixed"], "run/later": ["workers.sole"]}
router_defaults = {"name": "[a-z0-9.]+", "argument": "[0-9.]*"}
