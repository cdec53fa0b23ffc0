"""The name of each entry in `new/` that is one of `mail.text`, whole; else what is wrong with it, and exit code 1."""

import os
import sys

from mail import text

from maildefer.message.envelope import split

wrong = 0
for key in sorted(os.listdir("/mnt/nfs/queue/new")):
    with open(f"/mnt/nfs/queue/new/{key}", "rb") as file:
        data = file.read()
    envelope, offset = split(data, key)
    name = data[offset:].partition(b"\n")[0].removeprefix(b"Subject: ").decode()
    if envelope is None or not name or data[offset:] != text(name):
        print(f"{key} of {len(data)} bytes is not what was sent", file=sys.stderr)
        wrong = 1
    else:
        print(name)
sys.exit(wrong)
