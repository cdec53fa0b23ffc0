"""A front end by HTTP whose queue is on the mount, and clients of its own: ask_by_http.py KEYS.

Each key is asked for by three clients at once, with two recipients, until it is answered; what was answered is noted.
"""

import http.client
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from tests.support.front_end import wait_until
from tests.support.http_front_end import ALL, tokens_in
from workers.journal import Journal

CLIENTS = 3
KEYS = int(sys.argv[1])
PATH = "/queues/queue?recipient=ann@example.org&recipient=bob@example.org"
journal = Journal("answers")


def ask(port: int, number: int) -> None:
    """As a client does whose answer was lost."""
    fields = {"Authorization": f"Bearer {ALL}", "Idempotency-Key": f"order-{number}"}
    while True:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
        try:
            connection.request("POST", PATH, b"Subject: %d\n\n" % number, fields)
            response = connection.getresponse()
            data = response.read()
            if response.status == 201:
                journal.note(f"{number} {' '.join(json.loads(data)['keys'])}")
                return
        except (OSError, http.client.HTTPException):
            pass
        finally:
            connection.close()
        time.sleep(0.2)


with tempfile.TemporaryDirectory(dir="/run") as folder:
    log = Path(folder, "log")
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listener, log.open("wb") as stderr:
        command = [sys.executable, "-m", "maildefer.intake.http", "--socket-fd", str(listener.fileno())]
        command += ["--token-file", str(tokens_in(Path(folder))), "--queue", "queue=/mnt/nfs/queue"]
        process = subprocess.Popen(command, pass_fds=[listener.fileno()], stderr=stderr)
        wait_until(lambda: b"intake.listening" in log.read_bytes())
        port = listener.getsockname()[1]
        for number in range(KEYS):
            threads = [threading.Thread(target=ask, args=(port, number)) for _ in range(CLIENTS)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        process.terminate()
        process.wait()
        text = log.read_text()
    if "Traceback" in text:
        sys.exit(text)
    print(text, file=sys.stderr)
    os.sync()
