"""Handing a message on to another handler module, and so to the queue that lists it.

resolve    the queue to which a handoff goes
check      finds handoffs that lead nowhere, in the source, when a project is loaded
"""
