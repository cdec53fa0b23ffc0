"""What `top` and the page of `web` show, looked at again and again, whatever the mounts do.

    watch      looks at processes and queues, each in a child with a time limit
    overview   what a survey has found, as rows
    status_words  what is said of processes, queues and workers, also by `status`
    letters    entries of a queue by reason, and one whole entry, with the commands for them
    history    rates and counts of the last hours, in memory of a fixed size

Imports point down: watch > overview, history; letters; overview > status_words.
"""
