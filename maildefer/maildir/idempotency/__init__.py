"""Requests that are carried out once, however often they come, and what a message has done once, at all its attempts.

    once      pushes the entries of a request, or finds that they were pushed, and by which keys
    expire    removes what is kept of requests once it is a day old
    effects   whether a message has begun something before, or done it: `MailRequest.once`

Imports point down: once > push; effects > expire > rights.
"""
