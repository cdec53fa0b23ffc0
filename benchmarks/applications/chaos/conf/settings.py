"""One queue for messages, and one for the calls of a periodic task; two hosts on them."""

queues = {"run/queue": ["workers.chaos"], "run/ticks": ["workers.ticking"]}
receiver_config = {"host": "127.0.0.1", "port": 0}
