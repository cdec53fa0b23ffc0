"""mutt opens FOLDER, reads what is there and quits, as often as told: mutt.py FOLDER TIMES.

When it quits, it moves what was new to `cur/`: that is what mutt does. What vanishes meanwhile stops it, and makes it
ask; so it is told to quit, then to exit without that, until it ends.
"""

import itertools
import os
import pty
import select
import subprocess
import sys

folder, times = sys.argv[1], int(sys.argv[2])
os.makedirs("/dev/pts", exist_ok=True)
if not os.path.exists("/dev/pts/ptmx"):
    subprocess.run(["mount", "-t", "devpts", "devpts", "/dev/pts"], check=True)
start = ["mutt", "-n", "-F", "/dev/null", "-e", "set folder=/run quit=yes", "-f", folder]
os.environ["TERM"] = "vt100"


def open_it() -> int:
    pid, terminal = pty.fork()
    if pid == 0:
        os.execvp("sh", ["sh", "-c", 'stty rows 24 cols 80; exec "$@"', "sh", *start])
    for key in itertools.cycle(b"qxy"):
        while select.select([terminal], [], [], 1)[0]:
            try:
                os.read(terminal, 4096)
            except OSError:  # EIO: the other end is closed
                os.close(terminal)
                return os.waitpid(pid, 0)[1]
        os.write(terminal, bytes([key]))
    raise AssertionError("the keys go on for ever")


for _ in range(times):
    if status := open_it():
        sys.exit(f"mutt ended in {status}")
