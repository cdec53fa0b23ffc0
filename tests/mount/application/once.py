"""One unique key, pushed again and again: once.py COUNT. Each returned key is noted, and each new one as such."""

import sys
import time

from maildefer import Queue
from maildefer.errors import StorageFault
from workers.journal import Journal

accepted, new = Journal("accepted"), Journal("new")
queue = Queue("/mnt/nfs/queue")
for number in range(int(sys.argv[1])):
    while True:
        try:
            key = queue.push(
                f"Subject: {number}\n\nx", sender="", recipient=f"now-{number}@test", unique="the key"
            )
            break
        except StorageFault as fault:  # not accepted, so it is sent once more, as any sender does
            print(fault, file=sys.stderr, flush=True)
            time.sleep(0.1)
    accepted.note(key)
    if key.is_new:
        new.note(key)
    time.sleep(0.02)
