"""Planted bugs: each breaks one rule of the design, and each must be caught by some schedule.

A mutant is a list of replacements: (where, name, a function that gets what was there and returns what stands in).
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, redirect_stdout
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

import pytest

from maildefer.maildir import claims, doubt, due, durable, journal, names, pop, push, reading, scan
from maildefer.maildir.drafts import folder, placer, synced
from maildefer.maildir.idempotency import effects, once
from maildefer.maildir.markers import drafts, ends, finder, markers, moved, presence
from maildefer.maildir.markers.names import MarkerState
from maildefer.maildir.names import EntryName
from maildefer.maildir.operator import entries, schedule
from maildefer.maildir.outbox import commit as outbox_commit
from maildefer.maildir.outbox import outputs as outbox_outputs
from maildefer.maildir.outbox import publish as outbox_publish
from maildefer.maildir.upkeep import (
    failed_moves,
    grown,
    leases,
    observer,
    promote,
    rates,
    reclaim,
    sweep,
    ticks,
    token_reclaim,
    tokens,
)
from maildefer.pool import status_record
from maildefer.pool.keeper import heartbeat, keeper, maintenance, reclaim_log, slot_reclaim, ticker
from maildefer.pool.receiver import consumer
from maildefer.pool.scoreboard import Scoreboard
from maildefer.pool.scoreboard_slot import ScoreboardSlot
from maildefer.pool.supervisor import workers
from maildefer.pool.worker import (
    attempt,
    batch_leader,
    claim_slots,
    conversation_locks,
    cross_device,
    queue_view,
    scout,
    worker,
)
from maildefer.pool.worker.limits import worker_limits
from tests.simulation import (
    batchbugs,
    bugs,
    effectbugs,
    grownbugs,
    journalbugs,
    keyedbugs,
    laterbugs,
    limitbugs,
    markerbugs,
    outputbugs,
    periodicbugs,
    poolbugs,
)
from tests.simulation.installed import installed
from tests.simulation.schedule import run

Replacement = tuple[Any, str, Callable[[Any], Any]]


@dataclass(frozen=True, slots=True)
class Mutant:
    rule: str  # what is broken
    replacements: tuple[Replacement, ...]
    units: str = ""  # the unit tests that catch what only one schedule in hundreds meets
    # The first schedules, of which none meets it: so that there is time for one that does.
    passes_over: int = 0

    @contextmanager
    def planted(self) -> Iterator[None]:
        with ExitStack() as stack:
            for where, name, make in self.replacements:
                stack.enter_context(patch.object(where, name, make(getattr(where, name))))
            yield


@dataclass(frozen=True, slots=True)
class Verdict:
    rule: str
    schedules: int
    seed: int | None  # the one that caught it
    failure: str  # of that schedule, or the unit test that fails; empty where it survives


def judge(mutant: Mutant, first_seed: int, *, most: int, seconds: float) -> Verdict:
    """Run schedules until one fails, or as many as there is time for; then the unit tests, if it has some."""
    until, number = time.monotonic() + (seconds / 10 if mutant.units else seconds), 0
    with mutant.planted(), installed():
        for number in range(1, most + 1):
            result = run(first_seed + mutant.passes_over + number - 1)
            if result.failure.startswith(("AttributeError", "NameError", "TypeError")):
                raise AssertionError(f"{mutant.rule}: the planted code itself fails: {result.failure}")
            if result.failure:
                return Verdict(mutant.rule, number, result.seed, result.failure)
            if time.monotonic() > until:
                break
    return Verdict(mutant.rule, number, None, _failing_unit(mutant))


class _First:
    """Notes the first test that fails."""

    name = ""

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed and not self.name:
            self.name = report.nodeid.rpartition("::")[2]


def _failing_unit(mutant: Mutant) -> str:
    if not mutant.units:
        return ""
    first = _First()
    options = ["-q", "-x", "-p", "no:randomly", "-p", "no:cacheprovider", "-p", "no:xdist"]
    # That one collects what the schedules before have left, and fails for it.
    options += ["-p", "no:unraisableexception"]
    # Of maildefer's own plugin, whose distribution has `tests` in a checkout: they are imported here already.
    options += ["-W", "ignore::pytest.PytestAssertRewriteWarning"]
    with mutant.planted(), redirect_stdout(io.StringIO()):
        pytest.main([*options, mutant.units], plugins=[first])
    return first.name


def one(where: Any, name: str, make: Callable[[Any], Any]) -> tuple[Replacement, ...]:
    return ((where, name, make),)


MUTANTS = (
    Mutant("claim: the destination is everybody's", one(claims.Claimer, "serve_under", bugs.shared_owner)),
    Mutant("claim: not charged", one(EntryName, "claimed", bugs.uncharged)),
    Mutant("claim: sent in silence", one(queue_view.QueueView, "may_claim", poolbugs.may_always)),
    Mutant(
        "claim: published after it was sent",
        (
            (ScoreboardSlot, "take_place", poolbugs.published_late),
            (claims.Claim, "__init__", poolbugs.published_with_claim),
        ),
    ),
    Mutant("return: n not raised", one(EntryName, "returned", bugs.unreturned)),
    Mutant("return of a mail reader's name: n not raised", one(reclaim, "names", bugs.foreign_unreturned)),
    Mutant("requeue: n not raised", one(entries, "requeue", bugs.requeue_same)),
    Mutant("refused: never tried again", one(failed_moves.FailedMoves, "may_try", bugs.never_again)),
    Mutant(
        "refused: a reclaim that failed frees the slot",
        one(slot_reclaim.DeadSlots, "_reclaim_slot", bugs.given_up),
        units="tests/pool/keeper/test_maintenance.py",
    ),
    Mutant("settle: under a name that others can choose", one(names, "with_unique", bugs.as_named)),
    Mutant(
        "requeue: without what sets it apart",
        one(entries, "requeue", bugs.requeue_plain),
        units="tests/maildir/operator/test_entries.py",
    ),
    Mutant("promote: drops a field", one(promote, "names", bugs.promote_without)),
    Mutant("settle: ENOENT taken for done", one(claims.Claim, "_still_there", bugs.constant(False))),
    Mutant("settle: judged by its destination", one(claims.Claim, "_move", bugs.by_destination)),
    Mutant("settle: cleared from the board before its reply", one(claims.Claim, "_move", bugs.cleared_early)),
    Mutant("settle: ack before the handler", one(attempt.QueueAttempts, "read", poolbugs.ack_first)),
    Mutant("bury: no reason", one(claims, "write_reason", bugs.constant(None))),
    Mutant("read: not all bytes", one(reading, "read_entry", bugs.truncated)),
    Mutant("look: by stat", one(doubt, "is_listed", bugs.by_stat)),
    Mutant("look: a listing without a change of one's own", one(doubt, "fresh_listing", bugs.untouched)),
    Mutant("push: no sync of the directory", one(durable.DirectorySync, "sync", bugs.constant(None))),
    Mutant("push: no sync of the file", one(push.Pusher, "_sync_file", bugs.constant(None))),
    Mutant(
        "push: rename before the sync",
        one(push.Pusher, "_sync_and_rename", bugs.rename_first),
        units="tests/maildir/test_push.py",
    ),
    Mutant(
        "one sync: what a power cut has left is taken for whole",
        one(synced, "_is_whole", bugs.constant(True)),
        units="tests/maildir/drafts/test_synced.py",
        passes_over=4400,
    ),
    Mutant(
        "one sync: what a power cut has left stays",
        one(reclaim_log, "recover", bugs.constant(None)),
        units="tests/pool/keeper/test_retention.py",
        passes_over=880,
    ),
    Mutant(
        "one sync: the name of a large entry not on the disk",
        one(synced.SyncedDrafts, "note_other", bugs.constant(None)),
        units="tests/maildir/drafts/test_synced.py",
    ),
    Mutant(
        "one sync: where no order is kept",
        one(synced, "is_on", bugs.constant(True)),
        units="tests/maildir/drafts/test_synced.py",
    ),
    Mutant(
        "one sync: taken from a push that goes on",
        one(synced, "_is_left", bugs.constant(True)),
        units="tests/maildir/drafts/test_synced.py",
    ),
    Mutant("push: a doubtful rename taken for done", one(placer.DraftPlacer, "_left", bugs.constant([]))),
    Mutant("push: keys that come back", one(names, "fresh_stem", bugs.same_stem)),
    Mutant("lease: a doubtful beat taken for fenced", one(leases.Lease, "_settle_by_look", bugs.no_look)),
    Mutant(
        "lease: a doubtful beat taken for good", one(leases.Lease, "_settle_by_look", bugs.constant(None))
    ),
    Mutant(
        "lease: a dead keeper's late beat counted",
        one(leases.Lease, "renew", poolbugs.late_beat_taken),
        units="tests/maildir/upkeep/test_leases.py",
    ),
    Mutant(
        "lease: joined anew under the same name",
        one(heartbeat.Heartbeat, "_join_anew", poolbugs.joined_again),
    ),
    Mutant("silence: measured from the reply", one(heartbeat.Heartbeat, "_publish", poolbugs.from_reply)),
    Mutant(
        "fence: whatever beat is there",
        one(leases, "fence", bugs.fence_by_prefix),
        units="tests/maildir/upkeep/test_leases.py",
    ),
    Mutant("fence: before the TTL", one(observer.LeaseObserver, "_has_fallen_silent", bugs.impatient)),
    Mutant(
        "fence: one's own stall not minded",
        one(observer.LeaseObserver, "_note_own_stall", bugs.constant(None)),
    ),
    Mutant(
        "reclaim: absence from one listing",
        one(observer.LeaseObserver, "abandoned", bugs.one_listing),
        units="tests/maildir/upkeep/test_observer.py",
    ),
    Mutant(
        "reclaim: two listings far apart",
        one(observer.LeaseObserver, "abandoned", bugs.far_apart),
        passes_over=400,
    ),
    Mutant("reclaim: without a fence", one(observer.LeaseObserver, "abandoned", bugs.all_others)),
    Mutant(
        "reclaim: once for each lease",
        one(observer.LeaseObserver, "abandoned", bugs.once),
        units="tests/maildir/upkeep/test_reclaim.py",
    ),
    Mutant("reclaim: the crash not charged", one(reclaim.Reclaimer, "reclaim_claim", bugs.crash_free)),
    Mutant("reclaim: never buried", one(reclaim.Reclaimer, "reclaim_claim", bugs.never_buried)),
    Mutant("death: in a handler, not charged", one(workers.WorkerTable, "reap", poolbugs.uncharged_deaths)),
    Mutant(
        "look: a refresh that failed overlooked",
        one(doubt, "fresh_listing", poolbugs.refreshed_or_not),
        units="tests/maildir/test_doubt.py",
    ),
    Mutant(
        "token: taken on an earlier leave",
        one(tokens.Tokens, "take_token", poolbugs.early_lease),
        units="tests/maildir/upkeep/test_tokens.py",
    ),
    Mutant(
        "token: reclaimed under its holder",
        one(token_reclaim.TokenReclaimer, "scan", poolbugs.reclaimed_anyway),
    ),
    Mutant(
        "token: n not raised",
        ((tokens, "free_path", poolbugs.same_token), (token_reclaim, "free_path", poolbugs.same_token)),
    ),
    Mutant(
        "token: waited for on the handler's time",
        one(conversation_locks.ConversationLocks, "take_token", poolbugs.on_its_time),
        units="tests/pool/worker/test_conversation_locks.py",
    ),
    Mutant("limit: slots not published", one(worker_limits, "TokenSlots", limitbugs.unpublished)),
    Mutant(
        "limit: released before the handler, and again",
        one(worker_limits.WorkerLimits, "take_slots", limitbugs.released_at_once),
    ),
    Mutant("limit: one slot more", one(worker_limits, "slots_of", limitbugs.one_more)),
    Mutant("rate: a slot free before its time", one(rates.RateSlots, "_named", limitbugs.shorter(0.5))),
    Mutant("rate: by a host's clock", one(rates.RateSlots, "__init__", limitbugs.by_hosts_clock)),
    Mutant("rate: a lost race taken for one's own", one(rates.RateSlots, "_take", limitbugs.believed)),
    Mutant("rate: taken slots taken again", one(rates.RateSlots, "_list_slots", limitbugs.any_slot_free)),
    Mutant("handoff: n not raised", one(claims.Claim, "handoff", poolbugs.handed_on(returns=-1))),
    Mutant("handoff: attempts kept", one(claims.Claim, "handoff", poolbugs.handed_on(attempts=1))),
    Mutant("handoff: failures kept", one(claims.Claim, "handoff", poolbugs.handed_on(failures=1))),
    Mutant("handoff: not counted", one(claims.Claim, "handoff", poolbugs.handed_on(handoffs=-1))),
    Mutant("defer: a failure not counted", one(claims.Claim, "defer", bugs.failing(False))),
    Mutant("defer: what a handler asked for, a failure", one(claims.Claim, "defer", bugs.failing(True))),
    Mutant(
        "clock: the mount's time by the wall clock",
        one(Scoreboard, "mount_time", poolbugs.by_wall_clock),
        units="tests/pool/keeper/test_mount_time.py",
    ),
    Mutant("handoff: crashes forgotten", one(claims.Claim, "handoff", poolbugs.handed_on(crashes=-9))),
    Mutant(
        "handoff: acked before its copy", one(cross_device, "hand_off_copy", poolbugs.acked_before_copied)
    ),
    Mutant(
        "pop: somebody else's unlink taken for its own",
        one(pop.Popped, "unlink", poolbugs.unlinked_by_somebody),
        units="tests/test_queue.py",
    ),
    Mutant("priorities: no turn of a low one", one(scan, "_TURNS", lambda old: [range(2)])),
    Mutant(
        "priorities: a low one waits for all others",
        one(scan, "_TURNS", lambda old: [range(3)]),
        units="tests/maildir/test_priorities.py",
    ),
    Mutant("scout: goes by arrivals alone", one(scout.QueueScout, "_pass", bugs.constant(None))),
    Mutant(
        "worker: a fault leaves the deadline", one(worker.Worker, "_run_handlers", poolbugs.deadline_left)
    ),
    Mutant(
        "supervisor: stopped, and nobody minds",
        one(keeper.Keeper, "_check_supervisor", bugs.constant(None)),
        passes_over=800,
    ),
    Mutant(
        "fence: other hosts' pids looked up here",
        one(maintenance.Maintenance, "_is_known_dead", poolbugs.pids_of_all),
        units="tests/pool/keeper/test_keeper.py",
    ),
    Mutant(
        "fence: one's own failed beats taken for good",
        one(maintenance.Maintenance, "_fence", poolbugs.always_beating),
        units="tests/pool/keeper/test_keeper.py",
    ),
    Mutant(
        "lease: joined anew under claims of the fenced one",
        one(heartbeat.Heartbeat, "_is_any_held", bugs.constant(False)),
        units="tests/pool/keeper/test_keeper.py",
    ),
    Mutant(
        "death: its claim is nobody's before it is reclaimed",
        one(status_record, "on_claims", poolbugs.dead_are_nobodys),
        units="tests/pool/keeper/test_keeper.py",
    ),
    Mutant(
        "scout: a dead worker's names not offered again",
        one(scout.QueueScout, "_forget_after_deaths", bugs.constant(None)),
        units="tests/pool/worker/test_scout.py",
    ),
    Mutant(
        "pop: a lost reply taken for a lost race",
        one(pop, "doubt", poolbugs.lost_race),
        units="tests/maildir/test_pop.py",
    ),
    Mutant(
        "sweep: drafts after 36 minutes",
        one(sweep, "DRAFT_SECONDS", lambda old: old / 60),
        units="tests/maildir/upkeep/test_sweep.py",
    ),
    Mutant(
        "batch: a claim that is taken over is charged twice",
        one(claim_slots, "replace", batchbugs.charged_twice),
    ),
    Mutant(
        "batch: a claim published after it was sent",
        one(claim_slots.GatheringClaimer, "claim", batchbugs.published_late),
    ),
    Mutant(
        "batch: what was passed on is kept",
        one(batch_leader.BatchLeader, "pass_claim", batchbugs.passed_and_kept),
    ),
    Mutant(
        "batch: a death in its handler not charged",
        one(claim_slots.GatheredSlots, "mark_in_handler", batchbugs.never_in_a_handler),
    ),
    Mutant(
        "batch: a death charges what was only gathered",
        one(Scoreboard, "spared", batchbugs.all_in_a_handler),
        units="tests/pool/worker/test_claim_slots.py",
    ),
    Mutant(
        "batch: calls overlap on a host", one(batch_leader.BatchCalls, "take_token", batchbugs.calls_at_once)
    ),
    Mutant(
        "batch: an exclusive call asks its host alone",
        one(batch_leader.BatchCalls, "take_token", batchbugs.calls_on_all_hosts),
    ),
    Mutant(
        "batch: the token is given back as the call begins",
        one(batch_leader.BatchCalls, "take_token", batchbugs.ends_with_the_first),
    ),
    Mutant(
        "batch: taken over under another's lease",
        one(claim_slots.GatheringClaimer, "claim", batchbugs.from_any_lease),
        units="tests/pool/worker/test_batch_leader.py",
    ),
    Mutant("tick: who loses pushes too", one(ticks.Ticks, "push", periodicbugs.loser_pushes)),
    Mutant(
        "tick: the entry before the name that tells of it", one(ticks.Ticks, "push", periodicbugs.entry_first)
    ),
    Mutant("tick: by the host's clock", one(ticker.Ticker, "_now", periodicbugs.by_host_clock)),
    Mutant("tick: finished only by who made it", one(ticks.Ticks, "finish", periodicbugs.own_only)),
    Mutant("tick: a lost reply taken for a lost race", one(ticks.Ticks, "move", periodicbugs.lost_at_once)),
    Mutant("tick: a doubtful move's draft discarded", one(ticks, "doubt", periodicbugs.no_doubt)),
    Mutant("later: due by the pusher's own clock", one(due.MountClock, "now", laterbugs.by_own_clock)),
    Mutant("later: pushed into new/", one(placer.DraftPlacer, "place_of", laterbugs.put_into_new)),
    Mutant("later: its folder not synced", one(durable.DirectorySync, "sync", laterbugs.unsynced_later)),
    Mutant("later: promoted a second early", one(promote.Promoter, "promote", laterbugs.a_second_early)),
    Mutant(
        "later: what is in new/ claimed before it is due",
        one(claims.Claimer, "claim", laterbugs.claimed_early),
    ),
    Mutant("later: postponed under the same name", one(claims, "postpone", laterbugs.postponed_as_it_is)),
    Mutant("reschedule: n not raised", one(schedule, "names", laterbugs.same_generation)),
    Mutant(
        "cancel: what it has taken forgets its due time",
        one(names, "pop_name", laterbugs.taken_without_due),
    ),
    Mutant(
        "cancel: a lost reply taken for a lost race",
        one(pop.Popped, "unlink", laterbugs.unsure),
        units="tests/maildir/operator/test_schedule.py",
    ),
    Mutant("cancel: what is gone taken for cancelled", one(schedule, "cancel", laterbugs.not_taken)),
    Mutant(
        "request: finished only by who made its marker",
        one(once.OncePusher, "_finish", keyedbugs.finished_by_its_maker),
    ),
    Mutant("request: the entries before the marker", one(once.OncePusher, "_place", keyedbugs.entries_first)),
    Mutant("request: any marker taken for its own", one(once.OncePusher, "_placed", keyedbugs.any_is_mine)),
    Mutant(
        "request: drafts discarded whose marker may be there",
        one(folder.FolderDraft, "discard", keyedbugs.discarded_at_once),
        units="tests/maildir/idempotency/test_once.py",
    ),
    Mutant(
        "request: drafts whose names are not synced",
        one(durable.DirectorySync, "sync", keyedbugs.unsynced("/tmp")),
        units="tests/maildir/idempotency/test_once.py",
    ),
    Mutant("request: a marker that is not synced", one(once, "durable", keyedbugs.marker_unsynced)),
    Mutant(
        "request: only its first entry in the marker",
        one(once.OncePusher, "_place", keyedbugs.half_an_answer),
    ),
    Mutant("request: withdrawn after a fault", one(once.OncePusher, "_finish", keyedbugs.withdrawn)),
    Mutant(
        "effect: ended by anybody",
        one(effects.Effect, "end", effectbugs.ended_by_anybody),
        units="tests/maildir/idempotency/test_effects.py",
    ),
    Mutant(
        "effect: what was interrupted told as done",
        one(effects.Effect, "begin", effectbugs.interrupted_as_done),
    ),
    Mutant(
        "effect: what was interrupted told as new",
        one(effects.Effect, "begin", effectbugs.interrupted_as_new),
    ),
    Mutant(
        "effect: a doubtful rename taken for done",
        one(effects.Effect, "_is_moved", effectbugs.moved_in_doubt),
        units="tests/maildir/idempotency/test_effects.py",
    ),
    Mutant("audit: none", one(reclaim.Reclaimer, "_audit", bugs.constant(None))),
    Mutant("audit: the board read before the listing", one(reclaim.Reclaimer, "scan", poolbugs.board_first)),
    Mutant(
        "audit: a new keeper forgets the dead",
        one(keeper.Keeper, "_reclaim_dead_slots", poolbugs.forgets_dead),
    ),
    Mutant("consumer: claims in silence", one(consumer.Consumer, "_next", poolbugs.consumer_never_asks)),
    Mutant(
        "consumer: a listing's fault as it came",
        one(consumer.Consumer, "_next", poolbugs.listing_unnamed),
        units="tests/pool/receiver/test_consumer.py",
    ),
    Mutant("push_all: its files not synced", one(durable, "sync_all", journalbugs.files_unsynced)),
    Mutant("push_all: the keys in another order", one(push.Pusher, "push_all", journalbugs.keys_of_others)),
    Mutant(
        "push_all: only the first fault is told", one(push.Pusher, "push_all", journalbugs.first_fault_only)
    ),
    Mutant("journal: a push without a record", one(journal.Journal, "record_pushes", bugs.constant(None))),
    Mutant(
        "outputs: seen before the commit", one(outbox_outputs.Outputs, "commit", outputbugs.published_first)
    ),
    Mutant(
        "outputs: the ack before they are synced",
        one(outbox_outputs.Outputs, "publish", outputbugs.published_unsynced),
    ),
    Mutant(
        "outputs: discarded after a doubtful commit",
        one(outbox_outputs.Outputs, "discard", outputbugs.discarded_in_doubt),
        units="tests/maildir/outbox/test_outputs.py",
    ),
    Mutant(
        "outputs: a doubtful commit taken for one",
        one(outbox_outputs, "commit", outputbugs.doubt_for_done),
        units="tests/pool/worker/test_attempt.py",
    ),
    Mutant(
        "outputs: looked for in one queue only",
        one(outbox_publish, "_drafts_in", outputbugs.one_queue_only),
    ),
    Mutant("outputs: the commit not synced", one(outbox_commit, "durable", outputbugs.unsynced)),
    Mutant(
        "outputs: another's commit not synced",
        one(outbox_publish, "durable", outputbugs.unsynced),
        units="tests/maildir/outbox/test_outputs.py",
    ),
    Mutant("outputs: handled again", one(attempt.QueueAttempts, "_is_finished", outputbugs.handled_again)),
    Mutant(
        "outputs: committed before they are synced",
        one(outbox_outputs.Outputs, "sync", outputbugs.never_synced),
    ),
    Mutant(
        "outputs: discarded though the claim was committed",
        one(reclaim.Reclaimer, "reclaim_claim", outputbugs.taken_back_unseen),
        units="tests/maildir/outbox/test_outputs.py",
    ),
    Mutant("grown: moved away and not replaced", one(grown, "replace_folder", grownbugs.moved_away)),
    Mutant("grown: emptied to be replaced", one(folder.FolderDraft, "place", grownbugs.emptied_first)),
    Mutant(
        "push: a folder that was replaced is the queue's end",
        one(placer.DraftPlacer, "move_left", grownbugs.never_again),
    ),
    Mutant(
        "journal: no note of a second push",
        one(placer.DraftPlacer, "note_repeated", bugs.constant(None)),
    ),
    Mutant("journal: an end after the unlink", one(claims.Claim, "ack", journalbugs.end_after_unlink)),
    Mutant("unique: a place is taken that is held", one(markers.Markers, "_take", markerbugs.taken_by_force)),
    Mutant(
        "unique: a doubtful take taken for done", one(markers.Markers, "_take", markerbugs.taken_in_doubt)
    ),
    Mutant(
        "unique: the marker goes before its entry",
        one(ends, "end_entry", markerbugs.freed_first),
        units="tests/maildir/markers/test_ends.py",
    ),
    Mutant(
        "unique: moved back by a mail reader without its marker",
        one(moved, "hold", markerbugs.never_held),
        units="tests/maildir/markers/test_moved.py",
    ),
    Mutant("bury: the counters go along", one(claims, "dead_name", bugs.counted)),
    Mutant(
        "unique: whatever is in its folder goes",
        one(ends, "_free", markerbugs.freed_whole),
        units="tests/maildir/markers/test_ends.py",
    ),
    Mutant(
        "unique: the marker goes before the end is on the disk",
        one(ends, "durable", markerbugs.unsynced),
        passes_over=900,
    ),
    Mutant(
        "unique: the marker not on the disk before its entry",
        one(finder.MarkerFinder, "sync_markers", bugs.constant(None)),
    ),
    Mutant(
        "unique: order trusted where there is none",
        one(drafts, "durable", markerbugs.order_trusted),
    ),
    Mutant(
        "unique: left folders not on the disk where no order is kept",
        one(ends, "durable", markerbugs.order_trusted),
        units="tests/maildir/markers/test_ends.py",
    ),
    Mutant(
        "unique: the folder of markers not on the disk",
        one(finder.MarkerFinder, "__init__", markerbugs.folder_unsynced),
    ),
    Mutant(
        "unique: an entry that is found not on the disk",
        one(finder.MarkerFinder, "__init__", markerbugs.entry_unsynced),
    ),
    Mutant(
        "unique: whoever finds a marker leaves its entry there",
        one(finder.MarkerFinder, "_finished", markerbugs.found_unfinished),
    ),
    Mutant("unique: freed after the TTL without a look", one(finder, "is_gone", bugs.constant(True))),
    Mutant(
        "unique: freed after a look at new/ alone",
        one(presence, "scan", markerbugs.seen_once),
        units="tests/maildir/markers/test_markers.py",
    ),
    Mutant(
        "unique: freed whatever the marker's time",
        one(presence, "time_of", bugs.constant(0.0)),
        units="tests/maildir/markers/test_markers.py",
    ),
    Mutant(
        "unique: a returned entry claimed without a touch",
        one(ends, "touch", bugs.constant(True)),
        units="tests/maildir/markers/test_ends.py",
    ),
    Mutant(
        "unique: claimed after a long touch",
        one(claims.Claimer, "__init__", markerbugs.never_asked_again),
        units="tests/maildir/markers/test_ends.py",
    ),
    Mutant(
        "unique: evidence of an end overlooked",
        one(MarkerState, "has_ended", markerbugs.without_evidence),
    ),
    Mutant(
        "unique: a marker without an entry left behind",
        one(drafts.MarkerDraft, "withdraw", markerbugs.discarded_plainly),
        units="tests/maildir/markers/test_markers.py",
    ),
    Mutant(
        "unique: requeued without its marker",
        one(markers.Markers, "retake", bugs.constant(None)),
        units="tests/maildir/markers/test_ends.py",
    ),
    Mutant(
        "unique: requeued under the burial's marker",
        one(entries, "free_marker", lambda old: ends.free_marker_of),
        units="tests/maildir/markers/test_ends.py",
    ),
    Mutant(
        "unique: swept without a trace",
        one(sweep, "clear_marker", markerbugs.swept_plainly),
        units="tests/maildir/upkeep/test_sweep.py",
    ),
)
