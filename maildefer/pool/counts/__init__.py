"""What the processes of a pool count for its metrics, in shared memory: no lock and no system call.

    places     words with names, in memory that one process writes
    memory     the memory of all slots: attempts by queue, handler and outcome with their durations; notable events
    record     the same as plain data, over all slots, for the status

Only a pool that is watched has it. Counts outlive the process that made them: the next one of its slot goes on.

Imports point down: record > memory > places.
"""
