"""Two queues of a shop, for pictures."""

queues = {"run/orders": ["workers.orders"], "run/newsletter": ["workers.newsletter"]}
router_defaults = {"host": ".+"}
workers = 4
health_config = {"socket": "run/health"}
