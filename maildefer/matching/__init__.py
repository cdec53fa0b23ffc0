"""From an address to the routes that may match it, within a limit of time.

    index             which of many patterns may match an address, found without trying each
    process_client    asks a matching process, for threads, which no signal can interrupt
    process           that process; started by its path, so it imports nothing of maildefer
    cost              whether a regular expression may take long
    literals          the tree that `re` makes of a regular expression, and the texts that every match must contain

Imports point down: index > cost, literals, process_client > process.
"""
