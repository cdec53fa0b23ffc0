"""The last look: every acknowledged push was handled to its end, or is a dead letter with a reason; nothing is left."""

from __future__ import annotations

from maildefer.maildir.names import first_name, split_beat
from maildefer.maildir.reasons import reason_path
from tests.simulation.name_cache import entry_in
from tests.simulation.oracle import Oracle
from tests.simulation.scheduler import Process
from tests.simulation.server import Directory, File


def outstanding(oracle: Oracle) -> list[str]:
    """What waits, is claimed, or is deferred; and tokens that are taken."""
    server = oracle.world.server
    found = oracle.conversations.outstanding()
    for layout in oracle.layouts:
        for path in (layout.new, layout.cur, layout.later_new, layout.later_cur, layout.synced):
            folder = server.directories.get(path)
            if isinstance(folder, Directory):
                found += [f"{path.rpartition('/')[2]}/{name}" for name in folder.names]
    return found


def is_all_done(oracle: Oracle) -> bool:
    """Whether nothing is outstanding; asked at each step of the calm."""
    directories = oracle.world.server.directories
    for layout in oracle.layouts:
        for path in (layout.new, layout.cur, layout.later_new, layout.later_cur, layout.synced):
            folder = directories.get(path)
            if folder is not None and folder.names:
                return False
    return not oracle.conversations.outstanding()


def check(oracle: Oracle, families: list[Process] | None) -> None:
    """Raises Violation. `families`: the supervisors that live, where the pools had the time to fence the others."""
    if left := outstanding(oracle):
        oracle.fail("liveness", f"left over in the end: {', '.join(left[:3])}")
    oracle.conversations.check()
    dead = _dead(oracle)
    oracle.outputs.check(dead)
    for key, history in oracle.histories.items():
        if key in dead:
            if dead[key] != history.data:
                oracle.fail("I9", f"a dead letter has other bytes than were pushed: {key}")
        elif history.acknowledged and history.end not in ("acked", "popped"):
            oracle.fail(
                "lost",
                f"acknowledged, and neither handled nor dead: {key} (last: {history.end or 'waiting'})",
            )
        elif history.acknowledged and not history.finished and history.end != "popped":
            oracle.fail("lost", f"acknowledged, and gone without a handler: {key}")
    if families is not None and (names := leftover_leases(oracle, families)):
        oracle.fail("liveness", f"a dead supervisor's lease was never fenced: {names[0]}")


def leftover_leases(oracle: Oracle, families: list[Process]) -> list[str]:
    """Leases of none of these supervisors."""
    found = []
    for layout in oracle.layouts:
        for name in oracle.world.server.directories[layout.leases].names:
            beat = split_beat(name)
            if beat is None or oracle.beats.family(layout, beat[0]) not in families:
                found.append(name)
    return found


def _dead(oracle: Oracle) -> dict[str, bytes]:
    server, found = oracle.world.server, {}
    for layout in oracle.layouts:
        for name, node in server.directories[layout.dead_new].names.items():
            entry = entry_in(name)
            reason = server.look(reason_path(layout, entry))
            if not isinstance(reason, File) or not reason.data:
                oracle.fail("reason", f"a dead letter has no reason: {name}")
            found[entry.key] = node.data if isinstance(node, File) else b""
    return found


def power_was_cut(oracle: Oracle) -> None:
    """What was not on the disk may be as it was before: entries come back, their counters with them.

    An attempt whose charge is gone is one that the entry's name does not know of: so many handlers may begin again,
    and no more. All else holds as before.
    """
    oracle.unsynced.clear()
    present = {
        entry_in(name).key: (folder, entry_in(name))
        for path, (folder, _) in oracle.places.items()
        if folder not in ("tmp", "leases", "fenced", "synced")
        for name in oracle.world.server.directories[path].names
    }
    if synced := oracle.world.server.directories.get(oracle.layouts[0].synced):
        found = [entry_in(first_name(name.rsplit(".", 2)[0])) for name in synced.names]
        present.update({entry.key: ("synced", entry) for entry in found})
    oracle.uniqueness.power_was_cut()
    oracle.outputs.power_was_cut({key: folder for key, (folder, *_) in present.items()})
    for key, history in oracle.histories.items():
        if key in present:
            folder, entry = present[key]
            history.not_before = float(entry.due or 0)
            history.end = "dead" if folder == "dead" else ""
            history.starts, history.charged = min(history.starts, entry.attempts), entry.attempts
            history.counted_from = min(history.counted_from, entry.returns)
            history.handed_out = history.cancelled = False  # what `pop` ends, no sync makes durable
        elif history.acknowledged and history.end not in ("acked", "popped"):
            oracle.fail("I1", f"acknowledged, and gone with the power: {key}")
