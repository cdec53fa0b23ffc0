"""Consuming a queue in one process, without a supervisor.

    consumer        claims messages in any program, under a lease of its own
    receiver        `QueueReceiver`: claims and handles in threads
    attempt         claim, handlers, settle, log line, for one thread
    batches         the receiver's waiting batches
    smtp_receiver   `SMTPReceiver` and `LMTPReceiver`: a front end in a boot module

Imports point down: smtp_receiver > receiver > attempt > batches > consumer.
"""
