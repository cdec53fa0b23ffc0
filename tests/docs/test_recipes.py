"""Files of the documents, typed into a new project: the recipes and the like, their tests, and their pools."""

from __future__ import annotations

import importlib.util
import io
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from maildefer.cli.project_skeleton import write_project
from maildefer.mail import MailResponse
from maildefer.maildir.layout import create_queue
from maildefer.message.envelope import Envelope, split
from maildefer.queue import Queue
from tests.support.documents import blocks_of, is_file, name_of, write_block
from tests.support.http_front_end import ALL, serving, tokens_in

ROOT = Path(__file__).resolve().parent.parent.parent
FILES = [
    block
    for page in sorted((ROOT / "docs").glob("*.md"))
    if page.stem != "tutorial"
    for kind, block in blocks_of(page)
    if kind == "python" and is_file(block)
]
NEEDED = {
    "tests/test_thumbnails.py": "PIL",
    "tests/test_orders.py": "django",
    "tests/test_mail.py": "django",
    "tests/test_hooks.py": "flask",
    "tests/test_app.py": "flask",
}
MISSING = {file: package for file, package in NEEDED.items() if importlib.util.find_spec(package) is None}

pytestmark = pytest.mark.slow


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """What somebody has who has typed all recipes."""
    project = tmp_path / "blog"
    write_project(project)
    for block in FILES:
        write_block(project, block)
    return project


def run(project: Path, *command: str) -> str:
    environ = {
        name: text for name, text in os.environ.items() if not name.startswith(("MAILDEFER_", "PYTEST"))
    }
    environ |= {"PYTHONPATH": str(ROOT), "MAILDEFER_RUNTIME_DIR": str(project / "r")}
    ended = subprocess.run(
        [sys.executable, "-m", *command],
        cwd=project,
        env=environ,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout[-6000:] + ended.stderr[-3000:]
    return ended.stdout


def test_the_tests_of_the_recipes_pass(project: Path) -> None:
    tests = [file for file in map(name_of, FILES) if file.startswith("tests/")]
    assert set(NEEDED) < set(tests)
    number = sum(block.count("\ndef test_") for block in FILES)
    told = run(
        project, "pytest", "-q", "-p", "no:cacheprovider", *(file for file in tests if file not in MISSING)
    )
    if MISSING:
        pytest.skip(f"only these were left out: {MISSING} are not installed: .ci/setup test")
    [passed] = re.findall(r"(\d+) passed", told)
    assert int(passed) >= number
    assert "skipped" not in told


def test_the_programs_of_the_documents_print_what_they_say(project: Path) -> None:
    programs = [block for block in FILES if "/" not in name_of(block)]
    assert len(programs) >= 5
    runs = "import runpy, sys\nfor name in sys.argv[1:]: runpy.run_path(name)"
    (project / "run_them.py").write_text(runs)
    told = run(project, "run_them", *map(name_of, programs))
    said = [
        text for block in programs for text in re.findall(r"^print\(.*\)  # ([^:\n]+)", block, re.MULTILINE)
    ]
    assert len(said) >= 4
    printed = iter(told.splitlines())
    assert [text for text in said if text not in printed] == []


def test_no_file_of_the_documents_is_written_twice() -> None:
    whole = [name_of(block) for block in FILES if "at its end" not in block.partition("\n")[0]]
    assert sorted(whole) == sorted(set(whole))


HOOK = """
import sys
from shop import hooks
sys.path.insert(0, "tests")
from test_hooks import BOUNCE, post, signed
headers, body = signed("mailgun", BOUNCE["mailgun"])
print(post("mailgun", headers, body), post("mailgun", headers, body), post("mailgun", headers, body + b" "))
hooks.FRONT_END = "http://127.0.0.1:1"
print(post("mailgun", headers, body))
"""


@pytest.mark.lifecycle
def test_the_front_end_stores_an_event_of_a_provider_once(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if MISSING:
        pytest.skip("Flask is not installed: .ci/setup test")
    (project / "hook.py").write_text(HOOK)
    events = create_queue(str(project / "run/events"))
    with serving(
        tmp_path, tokens_in(tmp_path), "--queue", f"events={events.path}", log=tmp_path / "log"
    ) as web:
        monkeypatch.setenv("FRONT_END", f"http://127.0.0.1:{web.port}")
        monkeypatch.setenv("EVENTS_TOKEN", ALL)
        monkeypatch.setenv("MAILGUN_KEY", "key")
        assert run(project, "hook").split() == ["200", "200", "409", "503"]
    assert len(os.listdir(events.new)) == 1
    run(project, "maildefer", "supervise", "run/events", "--drain", "--workers", "1")
    assert len(os.listdir(project / "run/bounced")) == 1


INVITE = """
import os
from shop.app import app
os.chdir("/")
print(app.test_client().post("/invite", data={"address": "ann@example.org"}).status_code)
"""


def test_what_a_web_application_sends_is_in_the_outgoing_queue(project: Path) -> None:
    if MISSING:
        pytest.skip("Flask is not installed: .ci/setup test")
    (project / "run").mkdir()
    (project / "web.py").write_text(INVITE)
    assert run(project, "web").split() == ["202"]
    [name] = os.listdir(project / "run/outgoing/new")
    envelope, _ = split((project / "run/outgoing/new" / name).read_bytes())
    assert envelope == Envelope("shop@example.org", "ann@example.org")


@pytest.mark.lifecycle
def test_a_host_handles_what_is_in_the_queues_of_its_role(project: Path) -> None:
    if MISSING:
        pytest.skip("Pillow is not installed: .ci/setup test")
    from PIL import Image

    [commands] = [block for kind, block in blocks_of(ROOT / "docs/recipes.md") if kind == "sh"]
    mail_host, big_host, _ = [line.partition("#")[0].split() for line in commands.splitlines()]
    mail = MailResponse(To="photos@localhost", From="ann@example.org", Subject="Photo", Body="See there.")
    photo = io.BytesIO()
    Image.new("RGB", (800, 600)).save(photo, "PNG")
    mail.attach(filename="cat.png", content_type="image/png", data=photo.getvalue())
    (project / "run").mkdir()
    Queue(str(project / "run/queue")).push(mail)

    def drain(command: list[str]) -> list[int]:
        run(project, *(word for word in command if word != "--intake"), "--drain", "--workers", "1")
        folders = ("run/queue/new", "run/photos/new", "run/thumbnails")
        return [len(os.listdir(project / each)) if (project / each).exists() else 0 for each in folders]

    assert drain(big_host) == [1, 0, 0]
    assert drain(mail_host) == [0, 1, 0]
    assert drain(big_host) == [0, 0, 1]
