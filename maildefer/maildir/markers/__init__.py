"""Markers: at most one entry for each name at a time, without a lock and without a lease.

A marker is a folder `.maildefer/FOLDER/HASH/`, where HASH is the hash of the name, in which there is

    KEY[,n=RETURNS][:FACT]            the marker itself, an empty file that names the entry
    KEY[,n=RETURNS][:FACT].draft      the entry, until it is moved to `new/` or `.later/`
    KEY.ended                         the entry, after it was acked or deleted; then the marker is freed

    names       the names of folders and files, and what a listing of a marker's folder says
    drafts      a marker's folder while it is made in `tmp/`
    ends        ends an entry that has a marker, and frees that
    presence    whether the entry of a marker is anywhere in the queue
    finder      finds a marker, carries out what is left of its push, frees it when it is over
    markers     pushes an entry under a marker, or finds the one that is there; unique: the same for a unique key

Imports point down: unique > markers > finder > drafts, ends > presence > names.
"""
