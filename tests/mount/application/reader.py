"""A mail reader that looks at the queue while it is worked on: reader.py PASSES; prints what it saw and moved.

As mutt and Dovecot do, it moves a few of the new messages that it has seen to `cur/`, with the flag for seen.
"""

import contextlib
import mailbox
import os
import sys

QUEUE, MOST_MOVED = "/mnt/nfs/queue", 5
seen = moved = 0
for _ in range(int(sys.argv[1])):
    box = mailbox.Maildir(QUEUE, create=False)
    for folder in (box, box.get_folder("later"), box.get_folder("dead")):
        for key in folder.keys():  # noqa: SIM118  # not a dictionary
            # It was claimed or settled meanwhile.
            with contextlib.suppress(KeyError, FileNotFoundError, OSError):
                seen += "Subject" in folder.get_message(key)
    for name in os.listdir(f"{QUEUE}/new")[-1:]:
        if moved < MOST_MOVED:
            with contextlib.suppress(FileNotFoundError):
                os.rename(f"{QUEUE}/new/{name}", f"{QUEUE}/cur/{name}:2,S")
                moved += 1
print(seen, moved)
