"""Linux system calls and /proc files that the standard library lacks or wraps badly, one idea in each module.

prctl             the signal at the parent's death, no new privileges, the boot clock
pidfd             a process held by a pidfd, so that the verified process is the one that is signalled
descendants       all processes that a process has started, found in /proc
inotify           inotify(7); directory_watch: being woken when a local writer adds a file to a directory
parallel_fsync    several files synced at once, by io_submit(2)
readiness         waiting for one descriptor, whatever its number
process_locks     locks among the processes of a host, which end with their holder
rlimits           RLIMIT_NOFILE
signal_stack      stack dumps of a process that dies in C code, on a signal stack that is large enough
process_title     what ps(1) shows
shared_heap       what a process leaves to its forks; unshareable: what it has that they can't use
"""
