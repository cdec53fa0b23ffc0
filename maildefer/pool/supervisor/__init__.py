"""The supervisor: forks, reaps, signals, reloads.

    supervisor         the loop
    signals            signal handlers that only note the signal
    spawner            forks the pool's own children, and keeps keeper and scout alive
    workers            the table of live workers: deadlines, deaths, reaping
    reload             probes the application anew, then replaces one worker at a time
    drain              the end of a pool
    status_server      answers `status`, and tells the service manager
    runtime_record     the record in the host's runtime directory
    startup_terminal   the standard error of the start, for failures that a log file would hide

SIGHUP: signals > supervisor > reload. SIGTERM: signals > supervisor > drain.
Imports point down: supervisor > drain, reload, runtime_record, status_server > signals, spawner, workers.
"""
