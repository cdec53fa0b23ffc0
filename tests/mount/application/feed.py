"""Messages enter here, and each is noted once its push has returned: feed.py AT_ONCE COUNT PAUSE_SECONDS DEAD.

The first DEAD of them are to be rejected, and every tenth is put off once.
"""

import sys
import time

from maildefer import Queue
from maildefer.errors import StorageFault
from workers.journal import Journal

at_once, count, pause, dead = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4])
journal = Journal("accepted")
queue = Queue("/mnt/nfs/queue")
for number in range(count):
    what = "dead" if number < dead else "later" if number % 10 == 9 else "now"
    text = f"Subject: {number}\n\n" + "All of it, and once. " * 40
    while True:
        try:
            journal.note(queue.push(text, sender="ann@example.org", recipient=f"{what}-{number}@test"))
            break
        except StorageFault as fault:  # not accepted, so it is sent once more, as any sender does
            print(fault, file=sys.stderr, flush=True)
            time.sleep(0.1)
    if number >= at_once:
        time.sleep(pause)
