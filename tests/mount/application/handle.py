"""Handle so many of what waits, as a user's own program does: handle.py COUNT. Their subjects."""

import sys

from maildefer import Queue

with Queue("/mnt/nfs/queue").consumer() as consumer:
    for _, claim in zip(range(int(sys.argv[1])), consumer, strict=False):
        print(claim.message["Subject"])
        claim.ack()
