"""What handlers send while they run: written to the queues for which it is, and seen there when they have returned.

    .maildefer/outbox/TOKEN.KEY     an output: an entry of this queue, until the claim TOKEN has committed it

TOKEN is the UNIQUE of the claim whose handlers have sent it, so that no other attempt has it, and nobody knows it who
can't list `cur/`.

They are synced when the handlers have returned; one rename of the claimed entry, to a name with `o=TOKEN`, commits
them, wherever they are; they are published, and the entry is acked. Whoever finds `o` in a name does what is left
(decision 73). A commit may be doubtful and land late: what it commits is never removed once it was sent.

    current     which outputs the code that runs now adds to
    outputs     the outputs of one attempt
    commit      commits them
    publish     publishes them, also those of another process
    sweep       removes what nobody will publish

Imports point down: publish > outputs > commit, current; sweep stands alone.
"""
