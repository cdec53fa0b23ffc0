"""setup.cfg says it all. Here only: a build gives the same bytes in any directory, under any umask, at any time."""

import gzip
import io
import os
import tarfile
import time
import zipfile

from setuptools import Distribution, setup
from setuptools.command.sdist import sdist

bdist_wheel = Distribution().get_command_class("bdist_wheel")  # of setuptools, or where that is old, of wheel

# Of every file, by https://reproducible-builds.org/specs/source-date-epoch/; zip knows no time before 1980.
WHEN = max(int(os.environ.get("SOURCE_DATE_EPOCH", 0)), 315532800)


def mode_of(found: int) -> int:
    return 0o755 if found & 0o100 else 0o644


def settle_sdist(path: str) -> None:
    with tarfile.open(path) as old:
        found = [(member, old.extractfile(member)) for member in old]
        files = [(member, file and file.read()) for member, file in found]
    with (
        open(path, "wb") as file,
        gzip.GzipFile(filename="", mode="wb", fileobj=file, mtime=WHEN) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as new,
    ):
        for member, data in sorted(files, key=lambda each: each[0].name):
            settled = tarfile.TarInfo(member.name)  # of nobody; a second name of a file becomes a file
            settled.type = tarfile.DIRTYPE if data is None else tarfile.REGTYPE
            settled.size, settled.mode, settled.mtime = len(data or b""), mode_of(member.mode), WHEN
            new.addfile(settled, io.BytesIO(data or b""))


def settle_wheel(path: str) -> None:
    with zipfile.ZipFile(path) as old:
        files = [(info, old.read(info)) for info in old.infolist()]
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as new:
        for info, data in files:
            settled = zipfile.ZipInfo(info.filename, time.gmtime(WHEN)[:6])
            settled.external_attr = (0o100000 | mode_of(info.external_attr >> 16)) << 16
            new.writestr(settled, data, zipfile.ZIP_DEFLATED)


class SettledSdist(sdist):
    def run(self) -> None:
        super().run()
        for path in self.get_archive_files():
            settle_sdist(path)


class SettledWheel(bdist_wheel):
    def run(self) -> None:
        super().run()
        for kind, _, path in self.distribution.dist_files:
            if kind == "bdist_wheel":
                settle_wheel(path)


setup(cmdclass={"sdist": SettledSdist, "bdist_wheel": SettledWheel})
