"""The front end by HTTP: takes messages from programs and puts them into queues, nothing else (I11).

A process of its own, executed as `python -m maildefer.web` by the supervisor, which holds the listening socket. Behind
it are the same writers as behind SMTP, one for each queue: pushes share directory syncs. Needs `maildefer[web]`.
"""
