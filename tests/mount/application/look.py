"""What a client sees of DIRECTORY and of NAME in it: look.py DIRECTORY NAME; prints three times whether it is there.

By a look at the name, by a plain listing, and as the queue's code settles a doubt.
"""

import os
import sys

from maildefer.maildir import doubt
from maildefer.maildir.system import SYSTEM

directory, name = sys.argv[1:]
print(
    os.path.exists(f"{directory}/{name}"),
    name in os.listdir(directory),
    doubt.is_listed(directory, name, SYSTEM),
)
