"""Replaces folders of the queue as if they had grown, so many times: replace.py TIMES PAUSE_SECONDS."""

import sys
import time

from maildefer.maildir.layout import open_queue
from maildefer.maildir.upkeep import grown

layout, times = open_queue("/mnt/nfs/queue"), int(sys.argv[1])
grown.GROWN_BYTES = 0  # type: ignore[misc]
while times > 0:
    for path in grown.replace_grown(layout):
        times -= 1
        print(path, flush=True)
    time.sleep(float(sys.argv[2]))
