"""The parts of a pool do not trust each other: what each is given, and what becomes of one that is broken."""

from __future__ import annotations

import os
import signal
import smtplib
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from functools import partial
from itertools import combinations
from pathlib import Path

import pytest

from benchmarks import processes
from maildefer import Queue
from maildefer.host.environment import passed_variables
from maildefer.pool.frontend.log_sink import LogSink
from maildefer.pool.scoreboard import QueueWord
from maildefer.server import SMTPReceiver
from tests.lifecycle.conftest import Start
from tests.lifecycle.pool import Pool
from tests.lifecycle.project import PATIENCE_SECONDS, Project, eventually

pytestmark = pytest.mark.lifecycle
ROOT = Path(__file__).parent.parent.parent
SECRET, NAMED = {"AWS_SECRET": "key-of-all"}, {"BLOG_DB_URL": "db://blog"}
POLICY = """
import os
URL = os.environ["BLOG_DB_URL"]

def accept(*asked):
    return f"554 5.7.1 {URL}" if asked[2] == "url@test" else True
"""


# Their environment


def environment(pid: int) -> dict[str, str]:
    pairs = os.fsdecode(Path(f"/proc/{pid}/environ").read_bytes()).split("\0")
    return dict(pair.split("=", 1) for pair in pairs if "=" in pair)


def test_a_pools_front_end_and_all_that_it_starts_get_no_variable_but_those_of_a_list_and_those_named(
    fronted: Project, start: Start
) -> None:
    (fronted.path / "conf" / "policy.py").write_text(POLICY)
    (fronted.path / "tokens").write_text("a-token-that-is-long\n")
    (fronted.path / "tokens").chmod(0o600)
    said = '"port": 0, "policy": "conf.policy.accept", "environment": ["BLOG_DB_URL"]}'
    fronted.edit(
        "conf/settings.py", '"port": 0}', f'{said}\nweb_config = {{"token_file": "tokens", "port": 0}}'
    )
    pool = start(intake=True, environ=SECRET | NAMED)
    pool.await_event("intake.listening", 2)
    with pytest.raises(smtplib.SMTPRecipientsRefused, match="db://blog"):
        send(pool, "url@test")
    intake, web = processes.tree(pool.child("intake")), processes.tree(pool.child("web"))
    assert len(intake) >= 4, "with its writer and two policies"
    assert len(web) == 2
    for pid in intake:
        assert environment(pid) == passed_variables(NAMED, pool.environ), pid
    for pid in web:
        assert environment(pid) == passed_variables((), pool.environ), pid
    assert SECRET.items() <= environment(pool.worker_pids()[0]).items(), "which handlers may need"


def test_a_policy_that_lacks_a_variable_says_how_to_give_it_one(fronted: Project, start: Start) -> None:
    (fronted.path / "conf" / "policy.py").write_text(POLICY)
    fronted.edit("conf/settings.py", '"port": 0}', '"port": 0, "policy": "conf.policy.accept"}')
    pool = start(intake=True, environ=NAMED)
    reason = str(pool.await_event("policy.failed")["reason"])
    assert """name it in receiver_config["environment"] = ['BLOG_DB_URL']""" in reason
    fronted.edit("conf/settings.py", 'accept"}', 'accept", "environment": ["BLOG_DB_URL"]}')
    pool.signal(signal.SIGHUP)
    eventually(lambda: accepts(pool, "quick@test"), "after a reload it is loaded")


def test_an_environment_that_is_no_list_of_names_keeps_the_pool_from_starting(
    fronted: Project, start: Start
) -> None:
    fronted.edit("conf/settings.py", '"port": 0}', '"port": 0, "environment": ["A=b"]}')
    pool = start(ready=False, intake=True)
    assert pool.wait() == 78
    assert "environment is ['A=b']: give names of variables" in pool.log()


@contextmanager
def by_boot_module(folder: Path) -> Iterator[int]:
    receiver = SMTPReceiver(port=0, queue=str(folder / "queue"), environment=["BLOG_DB_URL"])
    receiver.start()
    try:
        assert receiver._process is not None
        yield receiver._process.pid
    finally:
        receiver.close()


@contextmanager
def by_sink(folder: Path) -> Iterator[int]:
    sink = LogSink("127.0.0.1", 0, str(folder / "queue"))
    sink.start()
    try:
        assert sink.launcher.process is not None
        yield sink.launcher.process.pid
    finally:
        sink.close()


@contextmanager
def by_stdio(folder: Path) -> Iterator[int]:
    code = "import sys; from maildefer.pool.frontend import smtp_on_stdio; "
    code += "sys.exit(smtp_on_stdio.serve_stdio(sys.argv[1]))"
    command = [sys.executable, "-c", code, str(folder / "queue")]
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environ) as speaking:
        assert speaking.stdin is not None
        assert speaking.stdout is not None
        assert speaking.stdout.readline().startswith(b"220 ")
        yield processes.tree(speaking.pid)[1]
        speaking.stdin.close()


@pytest.mark.parametrize("launched", [by_boot_module, by_sink, by_stdio])
def test_no_other_front_end_gets_its_starters_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, launched: Callable[[Path], AbstractContextManager[int]]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, value in (SECRET | NAMED).items():
        monkeypatch.setenv(name, value)
    with launched(tmp_path) as pid:
        for each in processes.tree(pid):
            found = environment(each)
            assert not SECRET.keys() & found.keys()
            assert (NAMED.keys() <= found.keys()) is (launched is by_boot_module)


# Their nonsense

LIAR = '''
"""Makes the next keeper or front end that finds a file here say what is in it, once."""

import os

from maildefer.intake import status_report as report
from maildefer.pool.keeper import keeper
from maildefer.pool.worker import scout

HERE = os.path.dirname(__file__)
_mind, _tell = keeper.Keeper._check_supervisor, report.IntakeStatus._write_report
keeper._CHECK_SECONDS = 0.05


def lie(kind):
    try:
        os.rename(f"{HERE}/{kind}", f"{HERE}/{kind}.{os.getpid()}")
        with open(f"{HERE}/{kind}.{os.getpid()}", "rb") as file:
            return file.read()
    except FileNotFoundError:
        return None


def mind(self):
    _mind(self)
    if (said := lie("keeper")) is not None:
        self._context.keeper[1].send(said)


def tell(self):
    if (said := lie("intake")) is not None:
        os.pwrite(self._fd, said.ljust(4096), 0)
        self._fd = None
    _tell(self)


keeper.Keeper._check_supervisor, report.IntakeStatus._write_report = mind, tell
_pack = scout.pack
scout.pack = lambda names: lie("scout") or _pack(names)
'''
LIES = [
    b"[" * 4000,
    b'{"connections": 1' + b"0" * 400 + b"}",
    b'{"connections": NaN, "fenced": NaN}',
    b'{"connections": -1, "overheard": -1, "reason": "x"}',
    b"\xff\xfe",
]


@pytest.fixture
def lies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a process finds what it is to say in the place of what it should."""
    folder = tmp_path_factory.mktemp("lies")
    folder.chmod(0o777)
    (folder / "sitecustomize.py").write_text(LIAR)
    return folder


def have_said(folder: Path, kind: str, said: bytes) -> None:
    (folder / "draft").write_bytes(said)
    (folder / "draft").rename(folder / kind)


def is_noticed(pool: Pool, kind: str, pid: int) -> bool:
    """A report is looked at when the status is asked for."""
    return bool(pool.status() and pool.events("child.misbehaved", kind=kind, pid=pid))


@pytest.mark.parametrize("kind", ["keeper", "intake"])
def test_a_child_that_says_nonsense_is_ended_and_replaced_ever_more_slowly_and_all_else_goes_on(
    fronted: Project, start: Start, lies: Path, kind: str
) -> None:
    pool = start(intake=True, environ={"PYTHONPATH": f"{lies}:{ROOT}"})
    others = {"keeper", "intake", "scout"} - {kind}
    pids = {other: pool.child(other) for other in others}
    for count, said in enumerate(LIES, 1):
        liar = pool.child(kind)
        have_said(lies, kind, said)
        noticed = partial(is_noticed, pool, kind, liar)
        eventually(noticed, "it is noticed")
        pool.await_event("child.died", kind=kind, pid=liar, how="SIGKILL")
        pool.await_event("child.started", count + 1, kind=kind)
    assert pool.events("pool.throttled"), "five deaths in a row"
    send(pool, "quick@test")
    eventually(lambda: fronted.notes("end"), "mail is taken and handled")
    eventually(fronted.is_empty, "and acked")
    assert pids == {other: pool.child(other) for other in others}, "nobody else has ended"
    assert not pool.events("worker.died")
    assert pool.stop() == 0


def test_a_scout_that_offers_what_is_no_name_is_ended_and_replaced(
    project: Project, start: Start, lies: Path
) -> None:
    pool = start(environ={"PYTHONPATH": f"{lies}:{ROOT}"})
    liar, workers = pool.child("scout"), set(pool.worker_pids())
    have_said(lies, "scout", b"../cur/another")
    project.push("quick", 3)
    pool.await_event("child.misbehaved", kind="scout")
    pool.await_event("child.died", kind="scout", pid=liar, how="SIGKILL")
    pool.await_event("child.started", 2, kind="scout")
    eventually(project.is_empty, "all is handled")
    assert set(pool.worker_pids()) == workers
    assert pool.stop() == 0


SPEAKING = """
def _speak(argument):
    import socket
    for descriptor in range(3, 100):
        try:
            end = socket.socket(fileno=os.dup(descriptor))
        except OSError:
            continue
        with end:
            if end.family == socket.AF_UNIX and end.type == socket.SOCK_SEQPACKET:
                try:
                    end.send(b"[" * 50_000, socket.MSG_DONTWAIT)
                    end.send(b'{"request": "stop"}', socket.MSG_DONTWAIT)
                except OSError:
                    pass
    time.sleep(3600)


def _scribble(argument):
    import sys
    from maildefer.pool.scoreboard import SlotWord
    frame = sys._getframe()
    while not hasattr(frame.f_locals.get("self"), "_shared"):
        frame = frame.f_back
    board = frame.f_locals["self"]._shared.board
    mine = next(slot for slot in board.workers() if board.words[board.slot(slot) + SlotWord.PID] == os.getpid())
    others = [board.words[board.slot(slot) + SlotWord.PID] for slot in board.workers() if slot != mine]
    base = board.slot(mine)
    for word in (*range(SlotWord.PID, SlotWord.HELD), *range(SlotWord.TOKENS, SlotWord.LIMIT + 1)):
        board.words[base + word] = 2**64 - 1
    board.words[base + SlotWord.PID] = others[0]
    time.sleep(3600)


ACTIONS: dict"""


@pytest.mark.parametrize(("what", "why"), [("speak", "what it said"), ("scribble", "its slot says")])
def test_a_worker_that_says_nonsense_is_ended_and_replaced_and_its_crash_charged(
    project: Project, start: Start, what: str, why: str
) -> None:
    project.edit("workers/front.py", "ACTIONS: dict", SPEAKING.lstrip())
    project.edit("workers/front.py", '"quick": lambda', f'"{what}": _{what}, "quick": lambda')
    pool = start(settings={"max_crashes": 1})
    project.push(what)
    told = pool.await_event("child.misbehaved", kind="worker")
    assert str(told["reason"]).startswith(why)
    died = pool.await_event("worker.died", pid=told["pid"])
    assert (died["how"], died["charged"]) == ("SIGKILL", True)
    pool.await_event("entry.buried")
    pool.await_event("worker.started", 3)
    project.push("quick", 5)
    eventually(lambda: len(project.notes("end")) == 5, "the others go on, and there is another in its place")
    eventually(project.is_empty, "all is settled")
    assert len(pool.events("worker.died")) == 1
    assert not pool.events("child.died")
    assert not pool.events("pool.draining"), "nor does a worker ask for that"
    assert pool.stop() == 0


def test_a_keeper_of_a_program_that_says_nonsense_is_ended_and_replaced(
    tmp_path: Path, lies: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PYTHONPATH", f"{lies}:{ROOT}")
    queue = Queue(str(tmp_path / "queue"))
    with queue.consumer() as consumer:
        have_said(lies, "keeper", b"[" * 4000)
        alone, words = consumer._keeper, consumer._board.words
        eventually(lambda: not (alone.receive_messages() or alone.is_running()), "it is ended")
        assert "kind=keeper" in capfd.readouterr().err
        words[consumer._board.queue(0) + QueueWord.CLAIM_UNTIL] = 0  # as half a TTL later
        key = queue.push("Subject: x\n\n")
        claim = consumer.claim(PATIENCE_SECONDS)
        assert claim is not None
        assert claim.key == key
        claim.ack()


BABBLING = """
import os, sys
if sys.argv[0].endswith("probe_process.py"):
    for descriptor in range(3, 20):
        try:
            os.write(descriptor, b"[" * 50_000 + b"\\n")
        except OSError:
            pass
    os._exit(0)
"""


def test_an_application_whose_look_says_nonsense_at_a_reload_leaves_the_old_workers(
    project: Project, start: Start
) -> None:
    pool = start()
    workers = set(pool.worker_pids())
    settings = project.path / "conf" / "settings.py"
    before = settings.read_text()
    settings.write_text(BABBLING + before)
    pool.signal(signal.SIGHUP)
    assert "no description of it" in str(pool.await_event("application.broken")["error"])
    project.push("quick")
    eventually(lambda: project.notes("end"), "the old workers go on")
    assert set(pool.worker_pids()) == workers
    settings.write_text(before)
    pool.signal(signal.SIGHUP)
    eventually(lambda: not workers & set(pool.worker_pids()), "the next reload is a good one")
    assert pool.stop() == 0


@pytest.mark.parametrize("question", [b"", b"[" * 500_000, b"\xff\0" * 9, b"format\n", b"status\n" * 9_000])
def test_nonsense_by_the_status_socket_is_a_question_like_any_other(
    project: Project, start: Start, question: bytes
) -> None:
    """There is one only, so nothing of it is parsed; who does not read the answer gets a part of it."""
    pool = start()
    path = next(path for path in pool.runtime.rglob("*.sock"))
    with ExitStack() as open_ones:
        for _ in range(30):
            client = open_ones.enter_context(socket.socket(socket.AF_UNIX))
            client.settimeout(0.1)
            with suppress(OSError):
                client.connect(str(path))
                client.sendall(question)
        assert pool.stop() == 0


# Their descriptors, and the memory behind them


def descriptors(pid: int) -> set[str]:
    """What they lead to: files by their names, sockets and pipes by their numbers."""
    found = set()
    for name in os.listdir(f"/proc/{pid}/fd"):
        with suppress(FileNotFoundError):
            found.add(os.readlink(f"/proc/{pid}/fd/{name}").removesuffix(" (deleted)"))
    return found


def memory(pid: int) -> set[str]:
    """What is mapped to be written to and shared, by inodes."""
    lines = map(str.split, Path(f"/proc/{pid}/maps").read_text().splitlines())
    return {inode for _, mode, _, _, inode, *_ in lines if mode == "rw-s"}


def test_each_part_has_the_descriptors_that_it_needs_and_no_others(fronted: Project, start: Start) -> None:
    pool = start(intake=True)
    pool.await_event("intake.listening")
    front, writer = processes.tree(pool.child("intake"))
    keeper, scout, worker = pool.child("keeper"), pool.child("scout"), pool.worker_pids()[0]
    of = {pid: descriptors(pid) for pid in (pool.pid, front, writer, keeper, scout, worker)}
    log = str(pool.log_path)
    assert {name for name in of[front] if "[" not in name} == {
        "/dev/null",
        log,
        "/memfd:blocks",
        "/memfd:connections",
        "/memfd:intake report",
        "/memfd:routes",
    }
    assert {name for name in of[writer] if "[" not in name} == {
        "/dev/null",
        log,
        "/memfd:blocks",
        "/memfd:routes",
    }
    [listener] = of[front] & of[pool.pid] - {"/dev/null", log} - {
        name for name in of[front] if "memfd" in name
    }
    assert not [pid for pid in (writer, keeper, scout, worker) if listener in of[pid]]
    theirs = {"/memfd:connections", "/memfd:intake report", "/memfd:routes"}
    assert not (of[keeper] | of[scout] | of[worker]) & theirs
    parts = {pid: {name for name in of[pid] if name.startswith(("socket:", "pipe:"))} for pid in of}
    for one, other in combinations((front, keeper, scout, worker), 2):
        assert not parts[one] & parts[other], "nobody speaks for another"
    assert not [
        name for pid in (keeper, scout, worker) for name in parts[pid] & of[pool.pid] if "pipe" in name
    ]
    [board] = memory(worker) & memory(keeper) & memory(pool.pid)
    assert board not in memory(front) | memory(writer)


def test_a_front_end_that_cuts_off_its_report_harms_nobody(fronted: Project, start: Start) -> None:
    pool = start(intake=True)
    pool.await_event("intake.listening")
    front = pool.child("intake")
    [report] = [
        f"/proc/{front}/fd/{name}"
        for name in os.listdir(f"/proc/{front}/fd")
        if "report" in os.readlink(f"/proc/{front}/fd/{name}")
    ]
    eventually(lambda: "accepted" in pool.status()["front_ends"][0], "it has reported")
    for size in (0, 1 << 50, 7):
        with suppress(OSError):  # EFBIG
            os.truncate(report, size)
        assert pool.status()["pid"] == pool.pid
    os.truncate(report, 0)
    send(pool, "quick@test")
    eventually(lambda: fronted.notes("end"), "mail is taken and handled")
    assert pool.stop() == 0


def address(pool: Pool) -> tuple[str, int]:
    told = pool.await_event("child.started", kind="intake")["address"]
    host, _, port = told.removeprefix("smtp://").rpartition(":")
    return host, int(port)


def send(pool: Pool, recipient: str) -> None:
    with smtplib.SMTP(*address(pool), timeout=PATIENCE_SECONDS) as client:
        client.sendmail("ann@example.org", [recipient], b"Subject: a test\r\n\r\nHello\r\n")


def accepts(pool: Pool, recipient: str) -> bool:
    try:
        send(pool, recipient)
    except (smtplib.SMTPException, OSError):
        return False
    return True
