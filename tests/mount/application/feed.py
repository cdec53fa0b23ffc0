"""Messages enter on this client, and each is noted once its push has returned: feed.py AT_ONCE COUNT PAUSE_SECONDS."""

import sys
import time

from maildefer import Queue
from workers.journal import Journal

at_once, count, pause = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
journal = Journal("accepted")
queue = Queue("/mnt/nfs/queue")
for number in range(count):
    what = "later" if number % 10 == 9 else "now"
    text = f"Subject: {number}\n\n" + "All of it, and once. " * 40
    journal.note(queue.push(text, sender="ann@example.org", recipient=f"{what}-{number}@test"))
    if number >= at_once:
        time.sleep(pause)
