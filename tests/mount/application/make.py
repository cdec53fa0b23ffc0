"""Make the queue, and others: make.py BEAT_SECONDS TTL_SECONDS [PATH …]."""

import os
import sys

from maildefer.maildir.layout import Format, create_queue

for path in ("/mnt/nfs/queue", *sys.argv[3:]):
    create_queue(path, format=Format(beat_seconds=float(sys.argv[1]), ttl_seconds=float(sys.argv[2])))
os.makedirs("/mnt/nfs/run", exist_ok=True)
