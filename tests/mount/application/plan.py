"""Messages for later, of which the first is cancelled or rescheduled: plan.py COUNT AFTER_SECONDS [cancel|reschedule].

Each is noted once its push has returned, but for the one that is cancelled, which is printed with what was answered.
"""

import sys
import time

from maildefer import Queue
from maildefer.errors import StorageFault
from workers.journal import Journal

count, after, change = int(sys.argv[1]), float(sys.argv[2]), sys.argv[3:]
journal = Journal("accepted")
queue = Queue("/mnt/nfs/queue")
keys: list[str] = []
while len(keys) < count:
    try:
        to = f"now-{len(keys)}@test"
        keys.append(queue.push("Subject: later\n\nx", sender="", recipient=to, after=after))
    except StorageFault as fault:  # not accepted
        print(fault, file=sys.stderr, flush=True)
        time.sleep(0.1)
        continue
    if change != ["cancel"] or len(keys) > 1:
        journal.note(keys[-1])
if change == ["cancel"]:
    print(keys[0], queue.cancel(keys[0]))
elif change:
    queue.reschedule(keys[0], after=1)
    print(keys[0])
