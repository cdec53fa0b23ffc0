"""One call of a handler: for a message, or for the messages of a batch.

    batch       calls a @batch function, and makes an outcome for each message
    terms       with what handlers are called: each to its end, or many on a loop
    step        a handler with its marks looked up
    middleware  the project's context managers around each call
    event_loop  the event loop that a thread keeps for `async def` handlers, and their time limits
    threads     the threads in which those have work done, which end with the attempt

Imports point down: batch > terms > step > middleware > event_loop > threads.
"""
