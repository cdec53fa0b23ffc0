"""The keeper: the supervisor's child that holds its lease in each queue and looks after the queue.

    keeper            its main thread
    heartbeat         the thread of a queue's lease: joins, beats, leaves
    maintenance       the thread of a queue's chores: reclaim, promote, requests, status, sweep
    chores            each chore by itself, tried again after a pause
    limited_entries   what waits for a limit: promoted when a slot is free, and counted
    slot_reclaim      reclaims what dead workers of this host held
    ticker            pushes calls of periodic tasks
    retention         the sweeps, and dead letters that are deleted for their age
    reclaim_log       log lines of all that was reclaimed
    mount_files       requests, status and shares of hosts on the mount
    mount_time        the mount's clock, kept against the boot clock
    pidfile_writer    the pid file, and the doctor's checks of a queue
    standalone        a keeper for a program without a supervisor

Imports point down: standalone > keeper > maintenance > chores, retention, slot_reclaim, limited_entries, ticker,
mount_files > heartbeat > mount_time.
"""
