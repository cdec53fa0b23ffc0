"""Real kernel NFS on one machine: a server and several clients as User-Mode Linux guests.

The host needs no NFS module, no KVM, no container runtime and, once the packages are there, no root.  The export is
ext4 on a disk image; the network is `Wire`, so it needs no tap, no bridge and no netem on the host.

    with NfsBed(clients=3, vers="4.2", options="actimeo=3") as bed:
        job = bed.clients[0].run(["python3", "/src/claim.py", "/mnt/nfs/queue"], env={"PYTHONPATH": "/src"})
        bed.server.kill()
        bed.server.boot()
        print(job.wait(60), job.out.read_text())
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Self

from tests.mount.guest import KERNEL, BedError, Guest
from tests.mount.wire import Needle, Wire

HERE = Path(__file__).parent
MOUNT = "/mnt/nfs"  # where a client sees the export
EXPORT = "/mnt/export"  # where the server keeps it
NETWORK = "10.77.0.0/24"  # to which it is exported
PACKAGES = (
    "user-mode-linux nfs-kernel-server nfs-common rpcbind iproute2 kmod e2fsprogs gcc libc6-dev procps mutt"
)
NEEDED = (KERNEL, "/usr/sbin/rpc.nfsd", "/usr/sbin/mount.nfs", "/usr/sbin/rpcbind", "/usr/sbin/mkfs.ext4")
IMAGE_BYTES = 1 << 30  # of the export; the file is sparse


def missing() -> str:
    """What is to be installed before a bed can boot; empty if nothing is."""
    absent = [path for path in NEEDED if not Path(path).exists()]
    if _needs_shim() and not shutil.which("cc"):
        absent.append("cc")
    return f"missing {' '.join(absent)}: apt-get install --no-install-recommends {PACKAGES}" if absent else ""


def _needs_shim() -> bool:
    return " amx_tile" in Path("/proc/cpuinfo").read_text()


class Bed:
    """Guests on one wire; as a context manager it leaves no process and no file behind."""

    def __init__(self, *, keep: bool = False) -> None:
        self.keep = keep
        self.directory = Path(tempfile.mkdtemp(prefix="nfsbed-"))
        self.environment = os.environ | {"HOME": str(self.directory), "TMPDIR": "/dev/shm"}
        self.wire = Wire()
        self.guests: dict[str, Guest] = {}
        self.boot_seconds = 0.0

    def add(self, name: str, port: int, *, disk: str = "", memory_mebibytes: int = 256) -> Guest:
        """A guest to be booted: the server, a client c0, c1, …, or any other name, which gets no NFS."""
        guest = self.guests[name] = Guest(
            name,
            port,
            directory=self.directory,
            wire=self.wire,
            environment=self.environment,
            disk=disk,
            memory_mebibytes=memory_mebibytes,
        )
        return guest

    def __enter__(self) -> Self:
        began = time.monotonic()
        self.wire.start()
        try:
            self._lay_out()
            with ThreadPoolExecutor() as pool:
                list(pool.map(Guest.boot, self.guests.values()))
            self._settle_in()
            self.boot_seconds = time.monotonic() - began
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for guest in self.guests.values():
            guest.kill()
        self.wire.closing = True
        self.wire.join()
        if not self.keep:
            shutil.rmtree(self.directory, ignore_errors=True)

    def _lay_out(self) -> None:
        if text := missing():
            raise BedError(text)
        shutil.copy(HERE / "init.sh", self.directory / "init")
        (self.directory / "init").chmod(0o755)
        if _needs_shim():
            shim = self.environment["LD_PRELOAD"] = f"{self.directory}/xstate.so"
            compile_it = ["cc", "-D_GNU_SOURCE", "-shared", "-fPIC", "-O2", "-o", shim, f"{HERE}/xstate.c"]
            subprocess.run(compile_it, check=True)

    def _settle_in(self) -> None:
        """What is to be done once all have booted."""


class NfsBed(Bed):
    """A server and its clients c0, c1, …"""

    def __init__(self, *, clients: int = 3, vers: str = "4.2", options: str = "", keep: bool = False) -> None:
        super().__init__(keep=keep)
        self.vers, self.options = vers, options
        self.server = self.add("server", 1, disk=f"{self.directory}/export.img")
        self.clients = [self.add(f"c{k}", 10 + k) for k in range(clients)]

    def mount(self, *, vers: str | None = None, options: str | None = None, on: Sequence[str] = ()) -> None:
        """Mount the export on the named clients or on all, in place of what is mounted there."""
        self.vers, self.options = vers or self.vers, self.options if options is None else options
        path, more = (EXPORT, "mountport=20048,mountproto=tcp") if self.vers == "3" else ("/", "")
        options = ",".join(filter(None, [f"vers={self.vers}", more, self.options]))
        script = (
            f"umount {MOUNT} 2> /dev/null; mount -t nfs -o {options} {self.server.address}:{path} {MOUNT}"
        )
        names = on or [client.name for client in self.clients]
        with ThreadPoolExecutor() as pool:
            list(pool.map(lambda name: self.guests[name].check(["sh", "-c", script]), names))

    def squash_root(self, options: str = "") -> None:
        """From now on root of a client is nobody to the server, or whom `anonuid` and `anongid` name."""
        words = "rw,sync,root_squash,no_subtree_check,insecure,fsid=0" + (options and f",{options}")
        self.server.check(["exportfs", "-i", "-o", words, f"{NETWORK}:{EXPORT}"])
        self.mount()  # what the clients know of who may do what is from before

    def lose_reply_for_good(self, client: str, *needles: Needle) -> None:
        """Have the client's next such call done by the server, and asked for again when its reply cache is gone."""
        passed = self.wire.lose_reply(client, *needles)
        assert passed.wait(60), "the client sends such a call"
        self.restart_nfsd()
        self.wire.reset(client)
        self.wire.heal()

    def restart_nfsd(self, down_seconds: float = 0.0) -> None:
        """Stop nfsd and start it again: the reply cache and all NFSv4 state go, the host stays up."""
        self.server.check(["sh", "-c", f"rpc.nfsd 0; sleep {down_seconds}; rpc.nfsd 8"], 60 + down_seconds)

    def _lay_out(self) -> None:
        super()._lay_out()
        with open(self.directory / "export.img", "wb") as image:
            image.truncate(IMAGE_BYTES)
        subprocess.run(["/usr/sbin/mkfs.ext4", "-q", "-F", "-E", "root_owner=0:0", image.name], check=True)

    def _settle_in(self) -> None:
        self.mount()
