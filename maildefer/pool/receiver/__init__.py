"""Consuming a queue in one process, without a supervisor.

    consumer          claims messages in any program, under a lease of its own
    receiver          `QueueReceiver`: claims, and has threads make the attempts
    thread_attempts   what an attempt of a receiver's thread differs in from a worker's
    batches           a receiver's messages that wait for a batch
    smtp_receiver     `SMTPReceiver` and `LMTPReceiver`: a front end in a boot module

Imports point down: smtp_receiver > receiver > thread_attempts > batches > consumer.
"""
