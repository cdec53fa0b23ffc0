"""The front end: takes mail by SMTP or LMTP and puts it into a queue, nothing else (I11).

A process of its own, executed as `python -m maildefer.intake` by whoever holds the listening socket. It knows the queue
on disk and the envelope, and never the handlers: whose recipients there are it is told as plain data.
"""
