"""An outgoing queue, and the server that takes what is in it, both named by the benchmark."""

import os

queues = {os.environ["BENCHMARK_QUEUE"]: ["maildefer.handlers.outgoing"]}
outgoing_config = {"host": "127.0.0.1", "port": int(os.environ["BENCHMARK_SINK"])}
