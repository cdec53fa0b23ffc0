"""Reports to senders on messages that can't be delivered, are late or are done (RFC 3464).

notices   whether a report is sent: to whom never, how many, and once for each message
report    a report's bytes
config    the setting

Imports point down: notices > report, config.
"""
