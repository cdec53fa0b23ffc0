"""Small models of single files: pushes, burials, handoffs, markers, and a lease that is made late.

A process is a list of steps; a step is a list of alternatives, each of which changes the files and returns whether it
could. After a step comes the next one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final, NamedTuple

from tests.model.explore import Result, Step, Violation, explore

Files = dict[str, str]
Act = Callable[[Files], bool]
Alternative = tuple[str, Act]
Processes = Mapping[str, Sequence[Sequence[Alternative]]]


class FilesState(NamedTuple):
    files: frozenset[tuple[str, str]]
    at: tuple[int, ...]  # the step that each process comes to


class FilesModel:
    def __init__(self, processes: Processes, files: Files, wrong: Callable[[Files], str]) -> None:
        self._processes, self._wrong = processes, wrong
        self.initial = FilesState(frozenset(files.items()), (0,) * len(processes))

    def is_over(self, state: FilesState) -> bool:
        return False

    def is_end(self, state: FilesState) -> bool:
        return True

    def steps(self, state: FilesState) -> Iterator[Step]:
        for number, (name, steps) in enumerate(self._processes.items()):
            for told, act in steps[state.at[number]] if state.at[number] < len(steps) else ():
                files = dict(state.files)
                if not act(files):
                    continue
                if why := self._wrong(files):
                    raise Violation(f"{why}: {name}: {told}")
                at = (*state.at[:number], state.at[number] + 1, *state.at[number + 1 :])
                yield Step(FilesState(frozenset(files.items()), at), (f"{name}:", told))


def move(source: str, target: str, *, may_be_gone: bool = False) -> Alternative:
    """A rename, over what is there; where the source is gone it waits for it, or goes on."""

    def act(files: Files) -> bool:
        if source in files:
            files[target] = files.pop(source)
            return True
        return may_be_gone

    return f"{source} → {target}", act


def write(path: str, data: str = "") -> Alternative:
    def act(files: Files) -> bool:
        files[path] = data
        return True

    return f"writes {path}", act


def unlink(path: str, *, may_be_gone: bool = True) -> Alternative:
    return f"unlinks {path}", lambda files: files.pop(path, None) is not None or may_be_gone


def once(path: str, *, there: bool = True) -> Alternative:
    """It waits until a file is there, or is not."""
    return f"sees {'' if there else 'no '}{path}", lambda files: (path in files) is there


def push(is_made_twice: bool) -> FilesModel:
    """A push whose rename is sent twice; is its file made a second time too, at any later time?"""

    def made_late(files: Files) -> bool:
        if "pushed" not in files or "tmp/X" in files:
            return False
        files["tmp/X"] = ""
        return True

    processes = {
        "push": [[write("tmp/X")], [write("tmp/X", "M")], [move("tmp/X", "new/K")], [write("pushed")]],
        "a late rename": [[once("pushed")], [move("tmp/X", "new/K", may_be_gone=True)]],
        "worker": [[move("new/K", "cur/K")], [move("cur/K", "handled")]],
    }
    if is_made_twice:
        processes["a late CREATE"] = [[("makes tmp/X, which is empty", made_late)]]
    return FilesModel(
        processes,
        {},
        lambda files: (
            "" if "pushed" not in files or "M" in files.values() else "an acknowledged message is lost"
        ),
    )


def push_reply(is_looked_for: bool) -> FilesModel:
    """The reply to a push's rename is lost. Is the entry looked for, or does its draft's absence say enough?"""
    again = [write("new/K2", "M")]
    looks: list[list[Alternative]] = [[once("new/K", there=False)], [once("cur/K", there=False)], again]
    processes = {
        "push": [[move("tmp/X", "new/K")], *(looks if is_looked_for else [[once("tmp/X", there=False)]])],
        "worker": [[move("new/K", "cur/K")], [unlink("cur/K", may_be_gone=False)]],
    }
    return FilesModel(processes, {"tmp/X": "M"}, lambda files: "queued twice" if "new/K2" in files else "")


def handoff(has_fresh_key: bool) -> FilesModel:
    """To a queue on another filesystem: pushed there, then acked here; its worker may be killed between."""
    second = "there/new/J" if has_fresh_key else "there/new/K,n=2"

    def pushed_again(files: Files) -> bool:
        if second in files:
            files["overwritten"] = ""
        files[second] = "M"
        return True

    processes: Processes = {
        "worker 1": [
            [write("there/new/K,n=1", "M")],
            [unlink("cur/K", may_be_gone=False), write("killed")],
        ],
        "keeper": [[once("killed")], [move("cur/K", "new/K,n=1")]],
        "worker 2": [
            [move("new/K,n=1", "cur/K,n=1")],
            [(f"pushes {second}", pushed_again)],
            [unlink("cur/K,n=1")],
        ],
        "worker there": [
            [move("there/new/K,n=1", "there/cur/K,n=1")],
            [move("there/cur/K,n=1", "there/new/K,n=2")],
        ],
    }
    return FilesModel(
        processes,
        {"cur/K": "M"},
        lambda files: "two generations have one name" if "overwritten" in files else "",
    )


def bury(has_n: bool) -> FilesModel:
    """Buried, requeued and buried again, while the first claim is reclaimed: has each dead letter its own reason?"""

    def reason(n: int) -> str:
        return f"reason/K,n={n}" if has_n else "reason/K"

    def buried(n: int) -> list[list[Alternative]]:
        return [
            [write(reason(n + 1), str(n + 1))],
            [move(f"cur/K,n={n}", f"dead/K,n={n + 1}", may_be_gone=True)],
        ]

    def wrong(files: Files) -> str:
        dead = [name for name in files if name.startswith("dead/")]
        found = all(files.get(reason(int(name[-1]))) == name[-1] for name in dead)
        return "" if found else "a dead letter has another burial's reason, or none"

    processes: Processes = {
        "worker 1": buried(0),
        "reclaim": [[move("cur/K,n=0", "new/K,n=1")]],
        "worker 2": [[move("new/K,n=1", "cur/K,n=1")], *buried(1)],
        "requeue": [[move("dead/K,n=1", "new/K,n=2")], [unlink(reason(1))]],
        "worker 3": [[move("new/K,n=2", "cur/K,n=2")], *buried(2)],
    }
    return FilesModel(processes, {"cur/K,n=0": "M"}, wrong)


def late_lease(is_judged_by_absence: bool) -> FilesModel:
    """A lease's CREATE is carried out once more, after its first beat: is it judged by its absence, or by a fence?"""

    def is_dead(files: Files) -> bool:
        return ("L.0" not in files and "L.1" not in files) if is_judged_by_absence else "fenced" in files

    def reclaimed(files: Files) -> bool:
        if not is_dead(files):
            return False
        files["reclaimed"] = ""
        return True

    processes: Processes = {
        "owner": [[write("L.0")], [move("L.0", "L.1")], [write("beaten")]],
        "a late CREATE": [[once("beaten")], [write("L.0")]],
        "observer": [[once("beaten")], [move("L.0", "fenced")], [("reclaims", reclaimed)]],
    }
    return FilesModel(
        processes,
        {},
        lambda files: "reclaimed under a live lease" if "reclaimed" in files and "L.1" in files else "",
    )


def requeue(frees_marker: bool) -> FilesModel:
    """An entry of a unique key is buried, which frees its marker, perhaps late, and requeued: is its key held?"""
    freed: list[list[Alternative]] = [[unlink("unique/K")], [write("unique/K,n=2")]]
    kept: list[list[Alternative]] = [[once("unique/K")]]

    def pushed(files: Files) -> bool:
        if "unique/K" in files or "unique/K,n=2" in files:
            return False
        files["other"] = ""
        return True

    processes: Processes = {
        "worker": [[move("cur/K", "dead/K,n=1")], [unlink("unique/K")]],
        "requeue": [
            [once("dead/K,n=1")],
            *(freed if frees_marker else kept),
            [move("dead/K,n=1", "new/K,n=2")],
        ],
        "push": [[once("new/K,n=2")], [("pushes another entry of the key", pushed)]],
    }
    return FilesModel(
        processes,
        {"cur/K": "M", "unique/K": ""},
        lambda files: "two entries of one unique key" if "other" in files and "new/K,n=2" in files else "",
    )


class FilesRun(NamedTuple):
    what: str
    model: FilesModel
    is_sound: bool = True

    def explored(self) -> Result:
        return explore(self.model)


RUNS: Final = (
    FilesRun("push: its rename is carried out twice", push(is_made_twice=False)),
    FilesRun("push: its CREATE too, which must not happen", push(is_made_twice=True), is_sound=False),
    FilesRun("push, the reply lost: the draft is gone, so it is done", push_reply(is_looked_for=False)),
    FilesRun("push, the reply lost: the entry is looked for", push_reply(is_looked_for=True), is_sound=False),
    FilesRun("handoff to another filesystem, under a fresh key", handoff(has_fresh_key=True)),
    FilesRun("handoff to another filesystem, under its key", handoff(has_fresh_key=False), is_sound=False),
    FilesRun("bury: the reason is named by n", bury(has_n=True)),
    FilesRun("bury: the reason is named by the key", bury(has_n=False), is_sound=False),
    FilesRun("a lease made late: judged by absence", late_lease(is_judged_by_absence=True)),
    FilesRun("a lease made late: judged by a fence", late_lease(is_judged_by_absence=False), is_sound=False),
    FilesRun("requeue with a unique key: the burial's marker is freed", requeue(frees_marker=True)),
    FilesRun("requeue with a unique key: it goes on under it", requeue(frees_marker=False), is_sound=False),
)
