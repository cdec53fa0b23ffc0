"""Ready handler modules, to be listed in the settings.

log        logs every message
queue      keeps every message in `run/queue`
outgoing   delivers what is in the outgoing queue, by the setting `outgoing_config`
forward    forwards every message by `settings.relay`
"""

__all__ = ["forward", "log", "outgoing", "queue"]
