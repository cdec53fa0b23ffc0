"""Messages enter here, and each is noted once its push has returned: feed.py AT_ONCE COUNT PAUSE_SECONDS DEAD [any].

The first DEAD of them are to be rejected, and every tenth is put off once. With `any` they have any priority.
"""

import sys
import time

from maildefer import Queue
from maildefer.errors import StorageFault
from workers.journal import Journal

at_once, count, pause, dead = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4])
priorities = ("low", "normal", "high") if len(sys.argv) > 5 else ("normal",)
journal = Journal("accepted")
queue = Queue("/mnt/nfs/queue")
for number in range(count):
    what = "dead" if number < dead else "later" if number % 10 == 9 else "now"
    text = f"Subject: {number}\n\n" + "All of it, and once. " * 40
    while True:
        try:
            priority = priorities[number % len(priorities)]
            recipient = f"{what}-{number}@test"
            journal.note(queue.push(text, sender="ann@example.org", recipient=recipient, priority=priority))
            break
        except StorageFault as fault:  # not accepted, so it is sent once more, as any sender does
            print(fault, file=sys.stderr, flush=True)
            time.sleep(0.1)
    if number >= at_once:
        time.sleep(pause)
