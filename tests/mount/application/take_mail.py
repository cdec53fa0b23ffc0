"""A front end whose queue is on the mount, and clients of its own: take_mail.py CLIENTS MESSAGES [KILLED_AFTER].

Each message is noted by its name once its 250 has come; every fifth is large. After so many the front end is killed.
"""

import os
import signal
import smtplib
import sys
import threading
from pathlib import Path
from tempfile import TemporaryDirectory

from mail import text

from tests.support.front_end import FrontEnd, front_end
from workers.journal import Journal

clients, messages, killed_after = (*map(int, sys.argv[1:]), 0)[:3]
journal = Journal("acknowledged")
taken = threading.Semaphore(0)


def send(front: FrontEnd, client: int) -> None:
    """Until the front end is gone, or all is sent."""
    try:
        with front.connect() as smtp:
            for number in range(messages):
                name = f"{os.uname().nodename}-{client}-{number}"
                smtp.sendmail("ann@example.org", ["bob@osb.example"], text(name).replace(b"\n", b"\r\n"))
                journal.note(name)
                taken.release()
    except (OSError, smtplib.SMTPException):
        if not killed_after:
            raise


def kill(front: FrontEnd) -> None:
    for _ in range(killed_after):
        taken.acquire()
    children = Path(f"/proc/{front.process.pid}/task/{front.process.pid}/children").read_text().split()
    for pid in (front.process.pid, *map(int, children)):
        os.kill(pid, signal.SIGKILL)


with TemporaryDirectory(dir="/run") as folder:
    os.symlink("/mnt/nfs/queue", f"{folder}/queue")
    with front_end(Path(folder)) as front:
        threads = [threading.Thread(target=send, args=(front, client)) for client in range(clients)]
        if killed_after:
            threads.append(threading.Thread(target=kill, args=(front,)))
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    if not killed_after and "Traceback" in front.log():
        sys.exit(front.log())
