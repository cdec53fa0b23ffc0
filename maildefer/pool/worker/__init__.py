"""The scout that lists a queue, and the workers that claim, handle and settle.

    scout                lists `new/` and offers names
    offers               names from the scout to the workers
    run                  the life of a worker's process
    worker               one message at a time: offer, claim, read, handle, settle
    queue_view           whether this process may claim in a queue now; faults and pauses
    settle               an outcome to what happens to the claim
    cross_device         a handoff to a queue on another filesystem
    conversation_locks   the tokens that a worker holds
    batch_worker         a worker with @batch handlers
    batch_group          messages that wait for one call; claim_slots: their claims on the scoreboard
    batch_leader         one worker gathers for all of a host
    bisect               finds the messages on which a batch fails

Imports point down: run > batch_worker > worker > settle, batch_leader, conversation_locks > queue_view, offers,
claim_slots.
"""
