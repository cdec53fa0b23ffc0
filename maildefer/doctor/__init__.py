"""Examines whether a directory is safe for a queue; yields facts, verdicts and remedies.

    examine     all checks of one queue, for `maildefer doctor` and for a pool that starts
    judge       a verdict on a mount by its kind and options alone
    trials      operations that are tried on the mount, in a folder made for this
    modes       rights in a queue: owners, groups, modes
    front_end   rights of a front end of another user; each is tried as that user
    one_sync    whether one sync is enough for a push, and the choice of it
    findings    the values that all of these modules yield

Imports point down: examine > judge, modes, front_end, one_sync, trials > findings.
"""
