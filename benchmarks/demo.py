"""`make demo`: mail goes in by SMTP, eight workers handle it, some are killed on the way, and nothing is lost.

A fresh project under `.cache/demo` is what runs, with nothing in it that `maildefer new` would not write.
The count at the end doesn't ask maildefer: it looks at the folders, and at the blog's pages.
Exits with 0 only if every accepted mail became a page on the front page, was answered, or lies in the dead letters.
"""

from __future__ import annotations

import argparse
import random
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.corpus import CorpusMissing, messages
from benchmarks.demo_mail import Mail, Sent, bounces, posts, real, send_all
from benchmarks.demo_project import HOME, Project, Trouble

WORKERS = 8
KILLS = 3
DEADLINE_SECONDS = 240


@dataclass
class Watch:
    """Shows how far things are: one line that is written anew on a terminal, else a line every two seconds."""

    project: Project
    sent: Sent
    total: int
    began: float = field(default_factory=time.monotonic)
    _said: float = 0.0
    _facts: str = ""

    def show(self, *, last: bool = False) -> None:
        terminal = sys.stderr.isatty()
        if not last and not terminal and time.monotonic() - self._said < 2:
            return
        seen = self.project.log
        facts = (
            f"accepted {len(self.sent.accepted):4}/{self.total}   posted {seen.posted:4}   "
            f"front page rebuilt {seen.rebuilt:4}   taken back {seen.reclaimed}"
        )
        if facts == self._facts and not last:
            return
        self._said, self._facts = time.monotonic(), facts
        line = f"  {self._said - self.began:5.1f} s   {facts}"
        print(f"\r{line}  " if terminal else line, end="" if terminal and not last else "\n", file=sys.stderr)


def main() -> int:
    parser = argparse.ArgumentParser(prog="make demo", description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--posts", type=int, default=400, help="blog posts to write, beside the real mail (400)"
    )
    parser.add_argument("--home", type=Path, default=HOME, help=f"where its project is to be ({HOME})")
    arguments = parser.parse_args()
    mail = [*real(corpus()), *posts(arguments.posts), *bounces(3)]
    random.Random(2).shuffle(mail)
    project = Project.fresh(arguments.home)
    try:
        project.start(workers=WORKERS)
        sent = run(project, mail)
    finally:
        stopped = project.stop()
    return report(project, mail, sent, stopped)


def corpus() -> list[tuple[str, bytes]]:
    """The real mail; without a network the demo shows the posts alone, and says so."""
    try:
        return list(messages())
    except CorpusMissing as why:
        print(f"no real mail this time: {why}", file=sys.stderr)
        return []


def run(project: Project, mail: list[Mail]) -> Sent:
    """Send everything while the workers work, kill some of them on the way, and wait until all is done."""
    sent = Sent()
    watch = Watch(project, sent, len(mail))
    print(
        f"sending {len(mail)} mails to 127.0.0.1:{project.smtp_port}, {WORKERS} workers are waiting",
        file=sys.stderr,
    )
    sender = threading.Thread(target=send_all, args=(project.smtp_port, mail, sent), daemon=True)
    sender.start()
    kills_at = [len(mail) * (kill + 1) // (KILLS + 2) for kill in range(KILLS)]
    deadline = time.monotonic() + DEADLINE_SECONDS
    while sender.is_alive() or not project.drained():
        if time.monotonic() > deadline:
            raise Trouble(f"not done after {DEADLINE_SECONDS} s; left: {project.left()}")
        project.must_live()
        project.log.read()
        if kills_at and project.log.posted >= kills_at[0] and (pid := project.kill_a_worker()):
            kills_at.pop(0)
            start = "\n" if sys.stderr.isatty() else ""
            print(f"{start}  kill -9 {pid}, a worker; what it had in hand is taken back", file=sys.stderr)
        watch.show()
        time.sleep(0.05)
    project.log.read()
    watch.show(last=True)
    if sent.failed:
        raise Trouble(f"the front end could not be reached: {sent.failed}")
    sent.seconds = time.monotonic() - watch.began
    return sent


def report(project: Project, mail: list[Mail], sent: Sent, stopped: str) -> int:
    """Print what became of everything; 0 if all of it is accounted for."""
    pages, listed, answers, dead = project.pages(), project.listed(), project.answers(), project.dead()
    accepted = [one for one in mail if one.name in sent.accepted]
    wanted = {one.name for one in accepted if not one.is_bounce}
    lost = sorted(wanted - pages - set(dead))
    rejected = {one.name for one in accepted if one.is_bounce}
    left, log = sum(project.left().values()), project.log
    twice = sum(answers.values()) - len(answers)
    refused = "; ".join(f"{name}: {reply}" for name, reply in sent.refused.items())
    for what, count, remark in (
        (
            "accepted",
            len(accepted),
            f"{sum(one.is_real for one in accepted)} of them real mail, durable before their 250",
        ),
        ("refused", len(sent.refused), refused),
        ("handled", len(pages), "published, each on a page of its own"),
        (
            "rebuilt",
            log.rebuilt,
            f"times in the background, once for {len(pages) / max(1, log.rebuilt):.0f} posts; "
            f"the front page lists {len(listed)}",
        ),
        (
            "answered",
            sum(answers.values()),
            f"{twice} of them twice, where a worker died between answer and note",
        ),
        ("killed", project.killed, "workers, by kill -9"),
        (
            "retried",
            log.reclaimed + log.deferred,
            "taken back from the killed, or deferred; then handled by others",
        ),
        ("dead", sum(dead.values()), "dead letters: mail from the null sender, which the blog rejects"),
        ("left", left, "in the queues"),
        ("lost", len(lost), " ".join(lost)),
    ):
        print(f"  {what:<10}{count:6}   {remark if count else ''}".rstrip())
    home = project.home
    print(f"""
Where to look:
  {home}/run/blog/index.html   the front page
  {home}/run/log/   the answers, a Maildir
  {home}/run/supervise.log   one line for each attempt
  cd {home} && {project.command} dead list run/queue   the dead letters, with their reasons
  cd {home} && {project.command} supervise   and it runs again

{stopped}""")
    faults = {
        "lost": lost,
        "not on the front page": sorted(pages - listed),
        "not answered": sorted(
            one.name for one in accepted if one.name in pages - set(answers) and one.wants_answer
        ),
        "in the dead letters without cause": sorted(set(dead) - rejected),
        "rejected, but not in the dead letters": sorted(rejected - set(dead)),
        "left in the queues": left,
        "accepted by nobody": not accepted,
        "no worker was killed": project.killed == 0,
        "rebuilt more often than once a second, for less than 20 posts": (
            log.rebuilt > sent.seconds + KILLS and 100 < len(pages) < 20 * log.rebuilt
        ),
        "still running": project.alive(),
    }
    wrong = [f"NOT ACCOUNTED FOR: {what}: {facts}" for what, facts in faults.items() if facts]
    print("\n".join(wrong) or "Everything is accounted for.")
    return int(bool(wrong))


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Trouble as trouble:
        print(f"demo: {trouble}", file=sys.stderr)
        sys.exit(1)
