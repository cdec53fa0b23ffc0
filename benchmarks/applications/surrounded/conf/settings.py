"""One queue, named by the benchmark, with a middleware around its handler."""

import os

queues = {os.environ["BENCHMARK_QUEUE"]: ["workers.noop"]}
router_defaults = {"host": ".+"}
middleware = ["conf.hooks.nothing"]
