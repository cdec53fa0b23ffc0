"""The supervisor: forks, reaps, signals, reloads.

    supervisor         the loop
    signals            signal handlers that only note the signal
    spawner            forks keeper and scout, keeps them alive, and prepares the slots of workers
    templates          the templates, of which workers are forks; template_child: one of them, and its fork
    reaper             the deaths of all children
    workers            the table of live workers: deadlines, deaths, reaping
    reload             probes the application anew, then replaces one worker at a time
    drain              the end of a pool
    status_server      answers `status`, and tells the service manager
    runtime_record     the record in the host's runtime directory
    startup_terminal   the standard error of the start, for failures that a log file would hide

SIGHUP: signals > supervisor > reload. SIGTERM: signals > supervisor > drain.
A worker's start: supervisor > templates > template/process > worker/run.
Imports point down: supervisor > drain, reaper, reload, runtime_record, status_server > templates > template_child >
signals, spawner, workers.
"""
