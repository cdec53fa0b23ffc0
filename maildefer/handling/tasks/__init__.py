"""Functions as deferred work.

declare      @task
task         a task, and `defer`
listing      the queue of a task's calls, by the settings
call         a call as a message: JSON and a signature
arguments    arguments as JSON: those that are plain, and those of types with a name
signature    the secret of a queue, and signatures by it for one entry each

Imports point down: declare > task > call, listing > arguments, signature.
"""
