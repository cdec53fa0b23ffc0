"""What a member of the queue's group puts where root of this host is going to write or look: plant.py PID."""

import os
import sys
import time
from dataclasses import replace

from maildefer.host import pidfile
from maildefer.host.identity import this_host
from maildefer.maildir import journal_file

CONTROL = "/mnt/nfs/queue/.maildefer"
PRECIOUS, FOLDER = "/run/precious", "/run/roots"

record = f"{time.strftime('%Y-%m-%d', time.gmtime())}.{journal_file.host_name()}.{journal_file.boot_name()}.0.pushed"
os.symlink(PRECIOUS, f"{CONTROL}/journal/{record}")
os.mkfifo(f"{CONTROL}/journal/2026-01-01.c9.aaaa.0.pushed", 0o666)
os.mkfifo(f"{CONTROL}/leases/c9-1-abcd.3", 0o666)
os.symlink(PRECIOUS, f"{CONTROL}/status/c9-1-abcd.json")
os.symlink(FOLDER, "/mnt/nfs/queue/tmp/.maildefer-1-abcd")
forged = pidfile.for_process(int(sys.argv[1]), this_host(), kind="supervise")
pidfile.write("/mnt/nfs/run/x.pid", replace(forged, queues=(FOLDER,), lease="c9-1-abcd"))
