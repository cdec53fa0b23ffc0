"""One call of a handler: for a message, or for the messages of a batch.

    step        a handler with its marks looked up
    batch       calls a @batch function, and makes an outcome for each message
    middleware  the project's context managers around each call

Imports point down: batch > step > middleware.
"""
