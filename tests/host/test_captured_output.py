"""What handlers print, and what they call writes to descriptors 1 and 2, is told line by line with its message."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest

from maildefer.host.captured_output import emit_rest, make
from tests.sampling import one_fast

PROGRAM = """
import ctypes, logging, os, subprocess, sys, threading
from maildefer import events; from maildefer import log_context; from maildefer import logs
from maildefer.host import captured_output as printed
from maildefer.message.request import MailRequest
events.configure("json")
made = printed.make()
output = printed.CapturedOutput(made)
output.capture()

def handler(message):
    log_context.begin_handler(message, "blog.handler")
    {body}

for number in (1, 2):
    message = MailRequest("peer", "ann@example.org", "post@test", b"")
    message.key = f"key{{number}}"
    log_context.run_handlers(handler, message)
{after}
"""


def lines_of(body: str, after: str = "") -> list[str]:
    program = PROGRAM.format(body=body, after=after)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    return done.stderr.splitlines()


def printed(body: str, after: str = "") -> list[dict[str, Any]]:
    """What was told of two messages' handlers."""
    lines = [json.loads(line) for line in lines_of(body, after)]
    assert {line["event"] for line in lines} == {"handler.printed"}
    return lines


@one_fast(
    ("body", "stream"),
    [
        ("print('a', 'line')", "stdout"),
        ("print('a line', file=sys.stderr)", "stderr"),
        ("sys.stdout.buffer.write(b'a line\\n')", "stdout"),
        ("sys.stdout.write('a line')", "stdout"),
        ("os.write(1, b'a line\\n')", None),
        ("os.write(2, b'a line')", None),
        ("subprocess.run(['echo', 'a line'])", None),
        ("subprocess.run(['echo', 'a line'], stdout=sys.stderr)", None),
        ("c = ctypes.CDLL(None); c.puts(b'a line'); c.fflush(None)", None),
        (
            "thread = threading.Thread(target=print, args=('a line',)); thread.start(); thread.join()",
            "stdout",
        ),
    ],
)
def test_whatever_is_written_is_told_with_its_message(body: str, stream: str | None) -> None:
    lines = printed(body)
    assert [(line["text"], line["key"], line.get("stream")) for line in lines] == [
        ("a line", "key1", stream),
        ("a line", "key2", stream),
    ]


def test_a_line_that_was_not_ended_is_not_the_next_messages() -> None:
    lines = printed("print('begun', end=''); os.write(1, b'raw')")
    assert [(line["text"], line["key"]) for line in lines] == [
        (text, key) for key in ("key1", "key2") for text in ("begun", "raw")
    ]


def test_lines_of_two_threads_do_not_mix() -> None:
    body = """barrier = threading.Barrier(2)
    def work(name):
        sys.stdout.write(name); barrier.wait(); sys.stdout.write(name + "\\\\n")
    threads = [threading.Thread(target=work, args=(name,)) for name in "ab"]
    [thread.start() for thread in threads]; [thread.join() for thread in threads]"""
    assert sorted(line["text"] for line in printed(body.replace("\\\\n", "\\n"))) == ["aa", "aa", "bb", "bb"]


def test_what_is_no_text_and_what_is_very_long_is_told_too() -> None:
    lines = printed(r"os.write(1, b'\xff\x00\n' + b'x' * 20_000 + b'\n')")
    assert lines[0]["text"] == "\\xff\x00"
    assert "".join(line["text"] for line in lines if line["key"] == "key1")[5:] == "x" * 20_000
    assert max(len(line["text"]) for line in lines) < 20_000


def test_a_child_that_comes_back_from_a_handler_takes_nothing_from_its_parent() -> None:
    body = "os.write(1, b'a line\\n'); child = os.fork()\n    if not child: return\n    os.waitpid(child, 0)"
    after = ""
    lines = printed(
        body.replace("if not child: return", "if not child: log_context.run_handlers(int, 0); os._exit(0)"),
        after,
    )
    assert [line["key"] for line in lines] == ["key1", "key2"]


def test_the_memory_of_what_was_told_is_given_back() -> None:
    after = "blocks = os.fstat(output._descriptor).st_blocks; assert blocks * 512 < 2 << 20, blocks"
    lines = printed("os.write(1, b'x' * 1000 * 1000 * 3 + b'\\n')", after)
    assert sum(len(line["text"]) for line in lines) == 6_000_000


def test_a_handler_that_closes_all_descriptors_fails_for_no_output() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(body="os.closerange(0, 4096)", after="")], check=False
    )
    assert done.returncode == 0


def test_a_stream_handler_of_the_projects_writes_its_own_form_of_line() -> None:
    body = "logging.warning('hello')"
    program = PROGRAM.replace(
        "output.capture()",
        "output.capture()\nlogging.basicConfig(format='mine %(key)s %(message)s', stream=sys.stdout)\nlogs.adopt()",
    )
    done = subprocess.run(
        [sys.executable, "-c", program.format(body=body, after="")],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == "mine key1 hello\nmine key2 hello\n"


def test_what_an_ended_process_left_is_told_by_who_made_its_file() -> None:
    after = """
for pid in [os.fork()]:
    if not pid:
        os.write(1, b'last'); os._exit(1)
    os.waitpid(pid, 0)
printed.emit_rest(output._descriptor, {'key': 'dead', 'pid': pid})"""
    *_, last = printed("print('x')", after)
    assert (last["text"], last["key"]) == ("last", "dead")


@pytest.mark.parametrize("left", ["hole", "text", "offset"])
@pytest.mark.slow
def test_what_a_dead_process_has_left_is_told_up_to_a_limit(
    left: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """A hole of a petabyte would hold up the supervisor for ever."""
    descriptor = make()
    if left == "hole":
        os.ftruncate(descriptor, 1 << 50)
    elif left == "text":
        os.pwrite(descriptor, b"a line\n" * 1_000_000, 0)
    else:
        os.lseek(descriptor, 1 << 50, os.SEEK_SET)
    emit_rest(descriptor, {"pid": 7})
    told = capfd.readouterr().err
    assert len(told) < 50 << 20
    assert ("bytes more, which are left out" in told) == (left != "offset")
    with pytest.raises(OSError):  # noqa: PT011  # EBADF: it is closed
        os.fstat(descriptor)
