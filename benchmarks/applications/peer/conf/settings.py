"""One queue, named by the benchmark."""

import os

queues = {os.environ["BENCHMARK_QUEUE"]: ["workers.jobs"]}
router_defaults = {"host": ".+"}
