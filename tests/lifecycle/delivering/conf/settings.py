"""An outgoing queue, and by the recipient's domain the servers that a test has started."""

import json
import os

queues = {"run/outgoing": ["maildefer.handlers.outgoing"]}
receiver_config = {"queue": "run/front"}  # which nobody runs here
notices = {"queue": "run/outgoing", "author": "postmaster@us.example", "delay_seconds": 1}
outgoing_config = json.loads(os.environ["OUTGOING"])
