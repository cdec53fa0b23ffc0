"""Markers: of the entries of one unique key at most one has not ended, without a lock and without a lease (I12).

A marker is a folder `.maildefer/unique/HASH/`, where HASH is the hash of the unique key, in which there is

    KEY[,n=RETURNS]       the marker itself, an empty file that names the entry
    KEY.draft             the entry, until it is moved to `new/` or `.later/`
    KEY.ended             the entry, after it was acked or deleted; then the marker is freed

    names       the names of folders and files, and what a listing of a marker's folder says
    drafts      a marker's folder while it is made in `tmp/`
    ends        ends an entry that has a marker, and frees that
    presence    whether the entry of a marker is anywhere in the queue
    finder      finds a marker, carries out what is left of its push, frees it when it is over
    moved       the marker of a dead letter that a mail reader has moved
    markers     pushes an entry under a marker, or finds the one that is there; unique: the same in one call

Imports point down: unique, moved > markers > finder > drafts, ends > presence > names.
"""
