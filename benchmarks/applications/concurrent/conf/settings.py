"""One queue, named by the benchmark, and a hundred messages in flight in each worker."""

import os

queues = {os.environ["BENCHMARK_QUEUE"]: ["workers.concurrent"]}
router_defaults = {"host": ".+"}
concurrency = 100
