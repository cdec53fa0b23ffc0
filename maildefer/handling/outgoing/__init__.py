"""Delivery of what is in the outgoing queue, as `maildefer.handlers.outgoing` does it.

    destinations   where mail goes, by the setting `outgoing_config`: servers, and the limits of each
    delivery       one message to one recipient, and what becomes of it by the server's words
    failure        what a server has said for good: the error for a recipient, or that it has the message
    delivery_count  counts what came of deliveries, for metrics

Imports point down: delivery > destinations, failure.
"""
