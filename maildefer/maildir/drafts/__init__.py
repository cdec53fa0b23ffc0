"""What is made in `tmp/`, durable, and then renamed to where it belongs.

    entry     an entry's file, whose bytes are composed at once or come in parts
    folder    a folder that is made whole: of tokens, of a rate's slots, of a marker, of a periodic task
    synced    where entries are written of which one sync makes a push; what a power cut has left of it
    placer    puts entries where they wait, for whoever pushes and for whoever finds what another has left

A draft's name is nobody else's, and never used again. So whoever knows it may rename it: of all who try, one moves it,
and a late request finds nothing (I4).
"""
