"""Ready handler modules, to be listed in the settings.

log        logs every message
queue      keeps every message in `run/queue`
forward    forwards every message by `settings.relay`
"""

__all__ = ["forward", "log", "queue"]
