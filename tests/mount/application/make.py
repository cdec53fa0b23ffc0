"""Make the queue: make.py BEAT_SECONDS TTL_SECONDS."""

import os
import sys

from maildefer.maildir.layout import Format, create_queue

create_queue("/mnt/nfs/queue", format=Format(beat_seconds=float(sys.argv[1]), ttl_seconds=float(sys.argv[2])))
os.makedirs("/mnt/nfs/run", exist_ok=True)
