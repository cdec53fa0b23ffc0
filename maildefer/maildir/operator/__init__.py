"""Operators' commands on a queue; workers never call this package while they handle messages.

entries         finds, shows, requeues, releases and deletes single entries
inspection      opens a queue to read it, and makes and mends nothing
oversized       sets a popped entry aside that is too large
pause_mark      the file that pauses a queue on all hosts
record_keeping  from when on every push has to have a record in the journal, and its end
schedule        cancels and reschedules single entries by their keys
"""
