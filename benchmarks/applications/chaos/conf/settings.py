"""One queue, two hosts on it."""

queues = {"run/queue": ["workers.chaos"]}
receiver_config = {"host": "127.0.0.1", "port": 0}
