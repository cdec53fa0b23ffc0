"""Requests that are carried out once, however often they come.

    once      pushes the entries of a request, or finds that they were pushed, and by which keys
    expire    removes what is kept of requests once it is a day old

Imports point down: once > push; expire > rights.
"""
