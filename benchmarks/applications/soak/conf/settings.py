"""Two queues, a front end, conversations: a little of everything."""

queues = {"run/queue": ["workers.front", "workers.talk"], "run/later": ["workers.back"]}
receiver_config = {"host": "127.0.0.1", "port": 0}
messages_per_worker = 0  # so that nobody's growth is hidden by a replacement
