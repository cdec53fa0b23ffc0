"""Rights in a queue, and safe work in folders that other users may write to.

    modes       the modes of files and folders that are made in a queue
    recording   who may write to the journal
    sharing     the rights of a front end of another user: as commands for a shell, or applied by descriptor
    folder      a folder that is opened once; all calls in it are relative to its descriptor
    confined    a `System` that follows no link below the queue's path

Imports point down: sharing, recording > modes > folder, confined > maildir/system.
"""
