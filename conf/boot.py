"""The front end: `maildefer start`. It only puts mail into the queue; `maildefer supervise` runs the handlers."""

from __future__ import annotations

from maildefer.server import SMTPReceiver
from maildefer.utils import settings

settings.receiver = SMTPReceiver(settings.receiver_config["host"], settings.receiver_config["port"])
