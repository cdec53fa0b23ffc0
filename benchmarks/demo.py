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

    def show(self, *, last: bool = False) -> None:
        terminal = sys.stderr.isatty()
        if not last and not terminal and time.monotonic() - self._said < 2:
            return
        self._said = time.monotonic()
        seen = self.project.log
        line = (
            f"{time.monotonic() - self.began:5.1f} s   accepted {len(self.sent.accepted):4}/{self.total}   "
            f"posted {seen.posted:4}   front page rebuilt {seen.rebuilt:4}   taken back {seen.reclaimed}"
        )
        print(
            f"\r  {line}  " if terminal else f"  {line}",
            end="" if terminal and not last else "\n",
            file=sys.stderr,
        )


def main() -> int:
    parser = argparse.ArgumentParser(prog="make demo", description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--posts", type=int, default=400, help="blog posts to write, beside the real mail (400)"
    )
    arguments = parser.parse_args()
    mail = [*real(corpus()), *posts(arguments.posts), *bounces(3)]
    random.Random(2).shuffle(mail)
    project = Project.fresh()
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
            print(f"\n  kill -9 {pid}, a worker; what it had in hand is taken back", file=sys.stderr)
        watch.show()
        time.sleep(0.05)
    project.log.read()
    watch.show(last=True)
    if sent.failed:
        raise Trouble(f"the front end could not be reached: {sent.failed}")
    return sent


def report(project: Project, mail: list[Mail], sent: Sent, stopped: str) -> int:
    """Print what became of everything; 0 if all of it is accounted for."""
    pages, listed, answers, dead = project.pages(), project.listed(), project.answers(), project.dead()
    by_name = {one.name: one for one in mail}
    expected = {name for name in sent.accepted if not by_name[name].is_bounce}
    lost = sorted(expected - pages - set(dead))
    unlisted = sorted(pages - listed)
    unanswered = sorted(
        name for name in expected & pages if by_name[name].wants_answer and name not in answers
    )
    told_twice = sum(count - 1 for count in answers.values() if count > 1)
    wrongly_dead = sorted(name for name in dead if name in expected)
    bounces_kept = sum(1 for name in dead if name not in expected)
    left = project.left()
    print(f"""
accepted   {len(sent.accepted):5}   of {len(mail)} by SMTP, {sent.real_accepted(by_name)} of them real mail, each durable before its 250
refused    {len(sent.refused):5}   {"" if not sent.refused else ", ".join(f"{n}: {r}" for n, r in list(sent.refused.items())[:3])}
handled    {len(pages):5}   published, each with a page of its own
rebuilt    {project.log.rebuilt:5}   times, in the background; the front page lists {len(listed)}
answered   {sum(answers.values()):5}   {f"{told_twice} of them twice, by workers killed between the answer and its note" if told_twice else "none twice"}
killed     {project.killed:5}   workers, by kill -9
retried    {project.log.reclaimed + project.log.deferred:5}   taken back from the killed or deferred, and handled by others
dead       {len(dead):5}   dead letters: the {bounces_kept} bounces that were sent to be rejected{f", and {wrongly_dead}" if wrongly_dead else ""}
left       {sum(left.values()):5}   in the queues
lost       {len(lost):5}   {lost[:5] or ""}

Where to look:
  {project.where("run/blog/index.html")}   the front page
  {project.where("run/log")}   the answers, a Maildir
  {project.where("run/supervise.log")}   one line for each attempt
  cd {HOME} && {project.command} dead list run/queue   the dead letters, with their reasons
  cd {HOME} && {project.command} supervise --workers {WORKERS}   and everything runs again

{stopped}""")
    faults = {
        "lost": lost,
        "not on the front page": unlisted,
        "not answered": unanswered,
        "in the dead letters without cause": wrongly_dead,
        "left in a queue": sum(left.values()),
        "bounces missing from the dead letters": sum(1 for n in sent.accepted if by_name[n].is_bounce)
        - bounces_kept,
        "no worker was killed": project.killed == 0,
        "still running": project.alive(),
    }
    wrong = [f"{what}: {facts}" for what, facts in faults.items() if facts]
    print("\n".join(f"NOT ACCOUNTED FOR: {line}" for line in wrong) or "Everything is accounted for.")
    return int(bool(wrong))


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Trouble as trouble:
        print(f"demo: {trouble}", file=sys.stderr)
        sys.exit(1)
