"""What handlers send while they run: written to the queues for which it is, and seen there when they have returned.

    .maildefer/outbox/TOKEN.KEY     an output: an entry of this queue, until the claim TOKEN has committed it

TOKEN is the UNIQUE of the claim whose handlers have sent it, so that no other attempt has it, and nobody knows it who
can't list `cur/`.

1. Each output is written to `tmp/`, and renamed to the outbox of its queue.
2. All of them are synced when the handlers have returned, and then their outboxes. One rename of the claimed entry, to
   a name with `o=TOKEN`, commits them, wherever they are, and is synced. For an entry that is handed on this is the
   rename into the other queue, with `o=TOKENh`.
3. They are published: renamed to where they wait, and synced.
4. The entry is acked; one that was handed on is handled in its queue.

Where handlers raise, their outputs are removed. After a death before 2, nobody publishes what is there, and a sweep
removes it. After one later on, whoever claims the entry next finds `o` in its name, and does what is left; its handlers
are done. 2 may be doubtful and may land late: what it commits is never removed once it was sent.

    current     which outputs the code that runs now adds to
    outputs     the outputs of one attempt
    commit      commits them
    publish     publishes them, also those of another process
    sweep       removes what nobody will publish

Imports point down: publish > outputs > commit, current; sweep stands alone.
"""
