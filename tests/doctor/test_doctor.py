"""The doctor: what it refuses, what it warns of, and that it leaves nothing behind."""

from __future__ import annotations

import errno
import json
import os
from dataclasses import asdict

import pytest

from maildefer.doctor import examine as doctor
from maildefer.doctor import trials
from maildefer.doctor.findings import refuse, warn
from maildefer.doctor.judge import judge
from maildefer.doctor.one_sync import examine_syncs, take_one, take_two
from maildefer.errors import MaildeferError, QueueMissing, ReadRefused, UnsafeMount
from maildefer.host import runtime_dir
from maildefer.host.mounts import is_local, mount_of, parse
from maildefer.maildir import durable
from maildefer.maildir.drafts.synced import is_on
from maildefer.maildir.journal_file import boot_name
from maildefer.maildir.layout import create_queue
from maildefer.maildir.rights.folder import open_folder
from tests.support.queues import holder, leave_synced

NOBODY = 65534
NFS = "64 29 0:52 / /srv/mail rw,relatime shared:340 - nfs4 192.0.2.7:/export/mail rw,vers=4.2,{},addr=192.0.2.7"


@pytest.fixture(autouse=True)
def _runtime(tmp_path, monkeypatch):
    monkeypatch.setenv("MAILDEFER_RUNTIME_DIR", str(tmp_path / "runtime"))


@pytest.fixture
def queue(tmp_path):
    return create_queue(str(tmp_path / "q"))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_what_this_user_may_not_see_is_not_taken_for_missing(tmp_path):
    (tmp_path / "shut").mkdir(mode=0o700)
    os.seteuid(NOBODY)
    try:
        with pytest.raises(ReadRefused, match="Permission denied: give this user"):
            doctor.examine(str(tmp_path / "shut" / "queue"), races=0)
    finally:
        os.seteuid(0)
    with pytest.raises(QueueMissing):
        doctor.examine(str(tmp_path / "shut" / "queue"), races=0)


def verdicts(findings):
    return {finding.check: finding.verdict for finding in findings}


def judged(line, **options):
    return list(judge(parse(line), **options))


def tree(path):
    return sorted(
        os.path.join(where, name) for where, folders, files in os.walk(path) for name in folders + files
    )


def test_a_user_without_an_inotify_watch_left_is_warned(queue, monkeypatch):
    assert "inotify" not in verdicts(doctor.examine(queue.path, races=0))

    def refuse():
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(doctor, "Inotify", refuse)
    (finding,) = [each for each in doctor.examine(queue.path, races=0) if each.check == "inotify"]
    assert finding.verdict == "warn"
    assert "up to a second late" in finding.fact
    assert "max_user_instances" in finding.remedy


# The mount's kind and options


def test_a_mounts_line_is_taken_apart_with_its_escapes():
    mount = parse(
        "36 35 98:0 / /mnt/a\\040b ro,noatime master:1 shared:2 - ext4 /dev/sd\\134a rw,errors=remount-ro\n"
    )
    assert mount.point == "/mnt/a b"
    assert mount.kind == "ext4"
    assert mount.source == "/dev/sd\\a"
    assert mount.options == {"ro", "noatime", "errors=remount-ro"}
    assert mount.option("errors") == "remount-ro"


@pytest.mark.parametrize("options", ["ro", "rw,errors=remount-ro,emergency_ro"])
def test_what_an_error_has_made_read_only_is_refused(options):
    (finding,) = judged(f"36 35 8:0 / /x rw,relatime - ext4 /dev/sda {options}")
    assert (finding.verdict, finding.fact) == ("refuse", "ext4 at /x is mounted read-only")


def test_a_disk_of_this_machine_is_told_from_what_is_not():
    assert is_local("/dev/shm")
    assert is_local("/dev/shm/no/such/queue/yet")
    assert not is_local("/proc")


def test_the_mount_of_a_path_is_the_kernels_own_answer():
    assert mount_of("/proc/self").kind == "proc"
    assert mount_of("/").point == "/"


@pytest.mark.parametrize(
    "options", ["soft,proto=tcp", "softerr,proto=tcp", "hard,proto=udp", "hard,proto=udp6"]
)
def test_a_mount_that_may_execute_what_it_reports_as_failed_is_refused(options):
    found = judged(NFS.format(options))
    assert verdicts(found)["filesystem"] == "refuse"
    assert all(finding.remedy for finding in found if finding.verdict != "ok")


def test_a_hard_mount_over_tcp_is_fine_and_its_export_unverified():
    found = judged(NFS.format("hard,proto=tcp"))
    assert verdicts(found) == {"filesystem": "ok", "export": "ok"}
    assert "unverified" in found[1].fact


@pytest.mark.parametrize(("option", "verdict"), [("async", "refuse"), ("sync", "ok")])
def test_an_export_of_this_very_host_is_looked_at(tmp_path, option, verdict):
    etab = tmp_path / "etab"
    etab.write_text(f"/export\t*(rw,{option},wdelay)\n/export/other\t*(rw,sync)\n")
    line = NFS.replace("192.0.2.7", "127.0.0.1").format("hard,proto=tcp")
    assert verdicts(judged(line, etab=str(etab)))["export"] == verdict


@pytest.mark.parametrize("kind", ["tmpfs", "overlay", "ramfs"])
def test_what_is_gone_after_a_reboot_is_warned_of(kind):
    assert verdicts(judged(f"1 2 0:5 / /x rw - {kind} none rw"))["filesystem"] == "warn"


@pytest.mark.parametrize("kind", ["fuse.sshfs", "fuseblk", "9p", "cifs"])
def test_what_nobody_has_tried_is_warned_of(kind):
    assert verdicts(judged(f"1 2 0:5 / /x rw - {kind} none rw"))["filesystem"] == "warn"


@pytest.mark.parametrize("kind", ["ext4", "xfs", "btrfs", "ceph"])
def test_what_is_known_is_fine(kind):
    assert verdicts(judged(f"1 2 0:5 / /x rw,relatime - {kind} /dev/x rw")) == {"filesystem": "ok"}


@pytest.mark.parametrize("line", ["1 2 0:5 / /x ro - ext4 /dev/x rw", "1 2 0:5 / /x rw - ext4 /dev/x ro"])
def test_a_read_only_mount_is_refused(line):
    assert judged(line)[0].verdict == "refuse"


@pytest.mark.parametrize(
    "line",
    [
        "1 2 0:5 / /x rw - ext4 /dev/x ro",
        "1 2 0:5 / /x ro - xfs /dev/x ro",
        NFS.format("hard,proto=tcp").replace("/srv/mail rw", "/srv/mail ro"),
        NFS.format("soft,proto=tcp").replace("/srv/mail rw", "/srv/mail ro"),
        NFS.format("soft,proto=udp"),
    ],
)
def test_nothing_is_both_refused_and_well(line):
    findings = judged(line)
    refused = {finding.check for finding in findings if finding.verdict == "refuse"}
    assert refused
    assert not refused & {finding.check for finding in findings if finding.verdict == "ok"}


def test_a_mount_without_barriers_is_warned_of():
    assert verdicts(judged("1 2 0:5 / /x rw - ext4 /dev/x rw,nobarrier"))["barriers"] == "warn"


# The trials


def test_this_filesystem_passes_every_trial(tmp_path):
    for trial in (trials.try_names, trials.try_race, trials.try_sight, trials.try_sync):
        with open_folder(str(tmp_path)) as folder:
            assert trial(folder).verdict == "ok"
        assert os.listdir(tmp_path) == []


def test_inodes_that_are_not_counted_are_not_scarce(queue, monkeypatch):
    """As CephFS says it."""
    facts = os.statvfs(queue.path)
    uncounted = os.statvfs_result((*facts[:5], 1, -1, -1, *facts[8:]))
    monkeypatch.setattr(os, "statvfs", lambda path: uncounted)
    assert verdicts(doctor.examine(queue.path, races=0))["space"] == "ok"


def test_little_space_is_told_in_a_unit_that_fits(queue, monkeypatch):
    """A gibibyte's tenth was told as 0.0 GiB."""
    real = os.statvfs(queue.path)
    facts = list(real)
    facts[0:2], facts[2:5] = [4096, 4096], [100_000, 10_000, 10_000]
    monkeypatch.setattr(os, "statvfs", lambda path: os.statvfs_result(facts))
    (finding,) = [one for one in doctor.examine(queue.path, races=0) if one.check == "space"]
    assert finding.fact == "41 MB free"


def test_two_winners_of_one_race_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "rename", lambda *names, **folders: os.link(*names, **folders))
    with open_folder(str(tmp_path)) as folder:
        found = trials.try_race(folder, 10)
    assert found.verdict == "refuse"
    assert "10 of 10" in found.fact


def test_a_race_without_a_winner_is_refused(tmp_path, monkeypatch):
    def lose(source, target, **folders):
        raise FileNotFoundError

    monkeypatch.setattr(os, "rename", lose)
    with open_folder(str(tmp_path)) as folder:
        assert trials.try_race(folder, 10).verdict == "refuse"


@pytest.mark.parametrize("side", [".0", ".1"])
def test_a_rename_that_fails_otherwise_is_refused_and_leaves_nothing(tmp_path, monkeypatch, side):
    def fail(source, target, **folders):
        if target.endswith(side):
            raise OSError(5, "Input/output error")
        os.link(source, target, **folders)
        os.unlink(source, dir_fd=folders["src_dir_fd"])

    monkeypatch.setattr(os, "rename", fail)
    monkeypatch.setattr(trials, "_RACE_TIMEOUT_SECONDS", 0.5)
    with open_folder(str(tmp_path)) as folder:
        assert trials.try_race(folder, 10).verdict == "refuse"
    assert os.listdir(tmp_path) == []


def test_a_rename_that_no_listing_shows_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "rename", lambda source, target, **folders: None)
    monkeypatch.setattr(trials, "_SLOW_SIGHT_SECONDS", 0.01)
    with open_folder(str(tmp_path)) as folder:
        assert trials.try_sight(folder, 2).verdict == "refuse"


def test_names_cut_by_the_filesystem_are_refused(tmp_path, monkeypatch):
    real = os.open
    monkeypatch.setattr(os, "open", lambda path, *rest, **named: real(path[:60], *rest, **named))
    monkeypatch.chdir(tmp_path)
    os.mkdir("d")
    with open_folder("d") as folder:
        assert trials.try_names(folder).verdict == "refuse"


def test_a_filesystem_that_cannot_sync_is_refused(tmp_path, monkeypatch):
    def fail(descriptor):
        raise OSError(22, "Invalid argument")

    monkeypatch.setattr(os, "fsync", fail)
    with open_folder(str(tmp_path)) as folder:
        assert trials.try_sync(folder).verdict == "refuse"


# The whole


def test_a_queue_is_examined_and_left_as_it_was(queue):
    open(f"{queue.new}/1.entry.host", "w").close()
    before = tree(queue.path)
    found = verdicts(doctor.examine(queue.path))
    assert tree(queue.path) == before
    assert {"filesystem", "format", "permissions", "rename", "names", "fsync", "clock", "visibility"} <= set(
        found
    )
    assert "refuse" not in found.values()


def test_a_plain_directory_is_examined_and_not_made_a_queue(tmp_path):
    place = tmp_path / "place"
    place.mkdir()
    assert "refuse" not in verdicts(doctor.examine(str(place))).values()
    assert os.listdir(place) == []


def test_without_races_nothing_is_forked(queue, monkeypatch):
    monkeypatch.setattr(os, "fork", None)
    assert verdicts(doctor.examine(queue.path, races=0))["fsync"] == "ok"


def test_a_missing_place_is_an_error(tmp_path):
    with pytest.raises(QueueMissing, match="is made at the first start"):
        doctor.examine(str(tmp_path / "none"))


def test_an_unknown_format_is_refused(queue):
    with open(queue.format, "w") as file:
        json.dump({"version": 99, "beat_seconds": 5, "ttl_seconds": 45}, file)
    assert verdicts(doctor.examine(queue.path))["format"] == "refuse"


def test_a_queue_that_anybody_may_write_to_is_warned_of(queue):
    os.chmod(queue.new, 0o777)
    assert verdicts(doctor.examine(queue.path))["permissions"] == "warn"


def test_a_umask_that_hides_entries_from_the_group_is_warned_of(queue):
    os.chmod(queue.new, 0o2770)
    before = os.umask(0o077)
    try:
        assert verdicts(doctor.examine(queue.path))["permissions"] == "warn"
    finally:
        os.umask(before)


def test_a_folder_that_this_user_may_not_write_to_is_refused(queue, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: not path.endswith("/cur"))  # root may everything
    found = next(finding for finding in doctor.examine(queue.path) if finding.check == "permissions")
    assert found.verdict == "refuse"
    assert "cur" in found.fact


@pytest.mark.parametrize(("offset", "verdict"), [(0.2, "ok"), (-90.0, "warn")])
def test_another_hosts_clock_is_judged_by_its_status(queue, offset, verdict):
    with open(f"{queue.leases}/mx2-0a1b2c-7-0123456789ab.4", "w"):
        pass
    with open(f"{queue.status}/mx2-0a1b2c-7-0123456789ab.json", "w") as file:
        json.dump({"clock_offset_seconds": offset}, file)
    found = next(finding for finding in doctor.examine(queue.path) if finding.check == "hosts")
    assert found.verdict == verdict
    assert "mx2" in found.fact


@pytest.mark.parametrize(("boots", "verdict"), [(("1", "2"), "warn"), (("1", "1"), "ok")])
@pytest.mark.slow
def test_two_machines_of_one_name_are_told_apart_and_warned_of(queue, boots, verdict):
    for number, boot in enumerate(boots):
        facts = {**asdict(holder(pid=7, host="mx-0a1b2c")), "boot_id": boot}
        with open(f"{queue.leases}/mx-0a1b2c-7-00000000000{number}.4", "w") as file:
            json.dump(facts, file)
    found = next(finding for finding in doctor.examine(queue.path) if finding.check == "hosts")
    assert found.verdict == verdict
    if verdict == "warn":
        assert "mx-0a1b2c-7-000000000000 and mx-0a1b2c-7-000000000001" in found.fact
        assert "MAILDEFER_HOST_ID" in found.remedy


def test_a_runtime_directory_of_others_is_refused(queue, tmp_path, monkeypatch):
    loose = tmp_path / "loose"
    loose.mkdir(mode=0o777)
    loose.chmod(0o777)
    monkeypatch.setenv(runtime_dir.DIRECTORY_VARIABLE, str(loose))
    assert verdicts(doctor.examine(queue.path))["runtime"] == "refuse"


def test_a_glance_needs_no_directory_and_writes_nothing(tmp_path):
    assert doctor.judge_mount_at(str(tmp_path / "a" / "b"))[0].check == "filesystem"
    assert os.listdir(tmp_path) == []


def test_a_start_looks_at_what_is_there_and_at_the_mount_of_what_is_not(tmp_path):
    assert "rename" in verdicts(doctor.examine_at_start(str(tmp_path)))
    assert set(verdicts(doctor.examine_at_start(str(tmp_path / "none")))) <= {
        "filesystem",
        "export",
        "barriers",
    }


def test_only_what_is_refused_keeps_a_pool_from_starting():
    doctor.refuse_unsafe("q", [warn("filesystem", "tmpfs", "use a disk")])
    with pytest.raises(UnsafeMount, match="soft: mount it hard"):
        doctor.refuse_unsafe("q", [refuse("filesystem", "soft", "mount it hard")])


# One sync for a push


@pytest.fixture
def ordered(monkeypatch):
    monkeypatch.setattr(durable, "keeps_order", lambda device: True)


@pytest.mark.usefixtures("ordered")
def test_one_sync_is_chosen_and_given_up_again(queue):
    assert list(examine_syncs(queue)) == []
    take_one(queue)
    take_one(queue)
    assert is_on(queue)
    assert [asdict(one)["verdict"] for one in examine_syncs(queue)] == ["ok"]
    key = leave_synced(queue)
    take_two(queue)
    take_two(queue)
    assert not is_on(queue)
    assert os.listdir(queue.new) == [key], "what was durable there"


def test_one_sync_is_refused_where_no_order_is_kept(queue, monkeypatch):
    monkeypatch.setattr(durable, "keeps_order", lambda device: False)
    with pytest.raises(MaildeferError, match="keep the order of changes"):
        take_one(queue)
    os.mkdir(queue.synced)  # as in a copy of another disk
    [finding] = examine_syncs(queue)
    assert finding.verdict == "warn"
    assert "--two-syncs" in finding.remedy


@pytest.mark.usefixtures("ordered")
def test_one_sync_is_refused_where_a_front_end_shares_the_queue_or_nothing_is_durable(queue, monkeypatch):
    os.chmod(queue.path, 0o3710)
    with pytest.raises(MaildeferError, match="shares the queue"):
        take_one(queue)
    os.chmod(queue.path, 0o700)
    line = "36 35 98:0 / /q rw,noatime - ext4 /dev/vda rw,nobarrier"
    monkeypatch.setattr("maildefer.doctor.one_sync.mount_of", lambda path: parse(line))
    with pytest.raises(MaildeferError, match="mounted with nobarrier"):
        take_one(queue)
    assert not os.path.exists(queue.synced)


@pytest.mark.usefixtures("ordered")
def test_one_sync_is_not_given_up_under_a_push(queue):
    take_one(queue)
    leave_synced(queue, boot=boot_name())
    with pytest.raises(MaildeferError, match="being pushed"):
        take_two(queue)
    assert is_on(queue)
