"""One queue, named by the benchmark."""

import os

queues = {os.environ["BENCHMARK_QUEUE"]: ["workers.together"]}
router_defaults = {"host": ".+"}
