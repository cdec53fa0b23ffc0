"""Functions as deferred work.

task         @task and `defer`
call         a call as a message: JSON and a signature
signature    the secret of a queue, and signatures by it for one entry each

Imports point down: task > call > signature.
"""
