"""Messages that are pushed one by one: push.py COUNT PAUSE_SECONDS."""

import sys
import time

from maildefer import Queue

queue = Queue("/mnt/nfs/queue")
for number in range(int(sys.argv[1])):
    text = f"Subject: {number}\n\n" + "All of it, and once. " * 40
    queue.push(text, sender="ann@example.org", recipient="noop@test")
    time.sleep(float(sys.argv[2]))
