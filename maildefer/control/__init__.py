"""What an operator's commands do to pools from outside: find, ask, stop, reload, audit; here and through the mount.

Imported by the commands of maildefer.cli; no part of a pool imports it.

    local_processes   the processes of this host, found by pid files and runtime records, and signalled
    pidfile_proof     whether a pid file may be believed
    health            what a process's account of itself means: alive, ready, degraded
    queue_status      what a queue holds and which hosts serve it
    drained           ends a pool of this host when its queues have nothing left
    stop              stops processes of this host by signals and those of others by requests
    stop_requests     asks other hosts' supervisors to stop, and waits; stop_steps: what `stop` reports
    requests          the files by which a supervisor of any host is asked for something
    reload_verdicts   asks for a reload and waits for each supervisor's verdict
    audit             proves from the journal that no message was lost
    journal_gaps      users and pools that handle mail now and leave no records in a journal
    history           what the journals tell of one message, in order
    key_ledger        which keys were accepted and which have ended; journal_reader reads the journal's files

A stop: stop > local_processes > pidfile_proof here; stop > stop_requests > requests on other hosts.
"""
