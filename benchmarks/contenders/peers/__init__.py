"""What runs in each peer's own processes: `program.py`, and a module for each peer, `NAME_jobs.py`.

Such a module has `enqueue(number, milliseconds)`, which returns when the job is as durable as that peer can make it,
`work(workers)`, which runs so many worker processes until it is terminated, and, where jobs of killed workers only come
back by a call, `recover()`, which is that call.
None of them imports maildefer but `maildefer_jobs`: they run in an environment of their own (benchmarks/peers).
"""
