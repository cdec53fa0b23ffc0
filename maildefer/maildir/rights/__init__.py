"""Who may do what in a queue, and work in folders that other users may write to.

    modes       the modes of what is made in a queue
    recording   who may write to the journal
    sharing     the rights of a front end of another user: as commands for a shell, or applied by descriptor
    folder      a folder opened once; what is done in it is done relative to it
    confined    a `System` that follows no link below the queue's path

Imports point down: sharing, recording > modes > folder, confined > maildir/system.
"""
