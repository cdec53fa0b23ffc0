"""Delivery status notifications: what senders ask for (RFC 3461).

parameters   RET, ENVID, NOTIFY and ORCPT, as they stand in an entry's envelope block
asked        those that a received message came with; light, since every worker loads it
"""
