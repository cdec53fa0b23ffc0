"""Messages for one recipient, a hundred with one directory sync: fill.py COUNT RECIPIENT."""

import sys
import time

from maildefer.maildir.layout import open_queue
from maildefer.maildir.push import Pusher
from maildefer.message.envelope import block

count, recipient = int(sys.argv[1]), sys.argv[2]
pusher = Pusher(open_queue("/mnt/nfs/queue"), host="filler")


def compose(stem: str) -> list[bytes]:
    head = block(stem, "ann@example.org", recipient, host="filler", when=time.time(), via="push")
    return [head, b"Subject: a figure\n\n" + b"All of it, and once. " * 40]


for _ in range(count // 100):
    assert all(isinstance(key, str) for key in pusher.push_all([compose] * 100))
