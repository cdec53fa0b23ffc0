"""The host on which a process runs: its identity, its pid files and runtime directory, its mounts.

Knows no queue's contents and no mail.

    identity           who this host is, and whether a process of it still lives
    pidfile            pid files: a bare pid, then JSON that tells whose it is
    pidfile_lock       one process for each pid file and host
    runtime_dir        the host's own runtime directory: what runs here, read without touching a mount
    status_socket      the question `status` on a UNIX socket, and its answer
    systemd            sd_notify(3)
    daemonize          starts a process in the background and waits until it is ready
    bounded_call       a function in a child process with a time limit, for mounts that may hang
    bounded_async      the same for a process with an event loop
    mounts             the kind and the options of the filesystem below a path
    privileges         becoming another user for good; environment: the variables that such a process gets
    captured_output    what a process's code prints, as events of its log
    working_directory  the working directory of a process that runs user code
    fork_throttle      a pause between forks when children die at once
    linux/             wrappers of Linux system calls and of /proc, one for each module

Imports point down: captured_output, daemonize, pidfile_lock, privileges > linux, pidfile, runtime_dir > the others.
"""
