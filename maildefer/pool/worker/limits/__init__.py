"""Limits over all hosts, as one worker keeps them. Only a pool with `@concurrency` or `@rate` handlers imports these.

    worker_limits   takes slots for a message, releases them, and says for how long it is postponed
    down            destinations that are down: closed on all hosts, and tried by one message at a time
    quick_waits     for what is free again in a moment
    waiting_line    spreads the messages of a host that wait for one limit, by the scoreboard
    gate            takes slots before the claim, where a queue has one handler and that is limited as a whole

Imports point down: gate > worker_limits > down, quick_waits, waiting_line.
"""
