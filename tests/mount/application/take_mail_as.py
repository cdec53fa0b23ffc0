"""A front end that gives up root, and whose queue is on the mount, takes so many: take_mail_as.py USER GROUP COUNT."""

import os
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from mail import text

from tests.support.front_end import front_end

user, group, count = sys.argv[1:]
with TemporaryDirectory(dir="/run") as folder:
    os.chmod(folder, 0o711)
    os.symlink("/mnt/nfs/queue", f"{folder}/queue")
    with front_end(Path(folder), "--user", user, "--group", group) as front, front.connect() as smtp:
        for number in range(int(count)):
            smtp.sendmail("ann@example.org", ["bob@osb.example"], text(f"n-{number}").replace(b"\n", b"\r\n"))
