"""What the supervisor hears of an application comes from a process that runs other people's code."""

from __future__ import annotations

from pathlib import Path

import pytest

from maildefer.errors import ConfigurationError
from maildefer.pool import probe
from maildefer.pool.probe import Probe

pytestmark = pytest.mark.lifecycle
SETTINGS = """
import json, os, sys
said = {said}
for descriptor in range(3, 20):
    try:
        if os.readlink(f"/proc/self/fd/{{descriptor}}").startswith("pipe:"):
            os.write(descriptor, said)
    except OSError:
        pass
os._exit(0)
"""


def heard(folder: Path, said: str) -> None:
    """What becomes of a look at a project that says that in the place of its description; an expression of Python."""
    (folder / "conf").mkdir()
    (folder / "conf" / "__init__.py").touch()
    (folder / "conf" / "settings.py").write_text(SETTINGS.format(said=said))
    Probe(str(folder)).wait()


@pytest.mark.parametrize(
    "said",
    [
        r'b"[" * 60_000 + b"\n"',
        r'b"7\n"',
        r'b"[1, 2]\n"',
        r'b"\xff\xfe\n"',
        r'b"1" + b"0" * 5000 + b"\n"',
        r'b"{}\n"',
        r"""b'{"error": [], "detail": 7}\n'""",
        r"""b'{"settings": {"queues": []}, "routes": [], "files": []}\n'""",
        r"""b'{"settings": {"queues": {}, "workers": NaN}, "routes": [], "files": []}\n'""",
        r"""b'{"settings": {"queues": {}}, "routes": [{"queue": 1}], "files": ["a\\u0000b"]}\n'""",
    ],
)
def test_a_description_that_is_none_is_an_application_that_cannot_be_loaded(
    tmp_path: Path, said: str
) -> None:
    with pytest.raises(ConfigurationError, match="no description of it"):
        heard(tmp_path, said)


@pytest.mark.parametrize("said", [r'b""', r"""b'{"settings": '"""])
def test_half_a_description_is_an_application_that_ended(tmp_path: Path, said: str) -> None:
    with pytest.raises(ConfigurationError, match="ended its own process"):
        heard(tmp_path, said)


def test_a_description_without_an_end_is_cut_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "_MOST_BYTES", 1 << 16)
    with pytest.raises(ConfigurationError, match="65536 bytes and more"):
        heard(tmp_path, '(b"x" * (1 << 20))')
