"""At most so many at a time, or in a period, over all hosts: what `@concurrency` and `@rate` say.

    limit       a limit as a value, and the texts in which it is written
    declare     the decorators, and the check of their keys before a pool starts
    admission   the tokens and slots under which a message is handled, taken before its handlers run

`pool/worker/limits` takes them on the mount.
"""
