"""The scout that lists a queue, and the workers that claim, handle and settle.

    scout                lists `new/` and offers names
    offers               names from the scout to the workers
    run                  the life of a worker's process
    worker               one message at a time: takes an offer, claims, has an attempt made
    attempt              one attempt, also a receiver's: read, handlers, outcome, settle, log line
    queue_view           whether this process may claim in a queue now; faults and pauses
    settle               from an outcome to what happens to the claim
    moved_letter         a dead letter that a mail reader has moved into its queue
    cross_device         a handoff to a queue on another filesystem
    conversation_locks   the conversation tokens that a worker holds
    batch_worker         a worker with @batch handlers
    batch_group          messages that wait for calls; claim_slots: their claims on the scoreboard
    batch_leader         one worker gathers for all of a host; which calls may begin
    in_flight/           a worker with async handlers: many messages at a time, on an event loop
    limits/              slots of @concurrency and @rate
    bisect               finds the messages on which a batch fails

A worker imports none of the modules of batches unless its application has @batch or async handlers, none of in_flight/
unless it has async ones, and none of limits/ unless any handler is limited.
Imports point down: run > in_flight > batch_worker > worker > limits > conversation_locks > queue_view; batch_worker >
batch_group, batch_leader, claim_slots; batch_group > attempt, bisect; worker > attempt > settle > cross_device;
attempt > moved_letter; worker, scout > offers.
"""
