"""The processes of one host's pool.

    supervisor/         forks, reaps, signals, reloads; imports no user code, never touches the mount
    template/           loads the application once, and forks the workers
    keeper/             holds the lease of each queue; reclaims, promotes, sweeps
    worker/             the scout that lists, and the workers that claim, handle, settle
    frontend/           listening sockets, and the intake processes on them
    receiver/           one process without a supervisor
    counts/             what a watched pool counts for its metrics
    options             what `maildefer supervise` was asked for
    context             what the processes of one supervisor share
    messages            what supervisor, keeper and workers say to each other, as types
    scoreboard          shared memory: what each process is on; scoreboard_slot: a process's own part of it;
                        scoreboard_views: its records by names, off the hot path
    status_record       the scoreboard as plain data, for `status`, and the rate of messages a second
    attempt_log         the log line of each attempt, buffered
    worker_deaths       how workers died; chore_faults: which chores fail
    pause               stopping and resuming claims
    fork                forks and executes child processes, and makes memory that they only read
    probe               asks a child process, probe_process, what the application is; watches its files

A message: worker/scout > worker/offers > worker/worker > maildir/claims > worker/attempt > handling/dispatch >
worker/settle.
A worker's death: supervisor/workers > keeper/slot_reclaim, or keeper/maintenance > maildir/upkeep/reclaim.
Imports point down: receiver, supervisor > template > frontend, keeper, worker > options, pause, status_record > probe,
chore_faults, worker_deaths > context, fork, scoreboard_slot, scoreboard_views > scoreboard, counts > messages,
attempt_log.
"""
