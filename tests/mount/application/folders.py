"""Rename a folder with a file onto a name, again and again, against other hosts: folders.py ROUNDS; prints who won."""

import errno
import os
import sys

host = os.uname().nodename
for number in range(int(sys.argv[1])):
    draft = f"/mnt/nfs/folders/draft-{host}-{number}"
    os.mkdir(draft)
    os.close(os.open(f"{draft}/{host}", os.O_WRONLY | os.O_CREAT))
    try:
        os.rename(draft, f"/mnt/nfs/folders/{number}")
        print(number, "won", flush=True)
    except OSError as fault:
        print(number, errno.errorcode[fault.errno or 0], flush=True)
