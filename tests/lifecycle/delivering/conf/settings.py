"""An outgoing queue, and by the recipient's domain the servers that a test has started."""

import json
import os

queues = {"run/outgoing": ["maildefer.handlers.outgoing"]}
outgoing_config = json.loads(os.environ["OUTGOING"])
