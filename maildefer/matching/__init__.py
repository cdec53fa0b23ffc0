"""From an address to the routes that may match it, within a limit of time.

    index             which of many patterns may match an address, found without trying each
    process_client    asks a matching process, for threads, which no signal can interrupt
    process           that process; started by its path, so it imports nothing of maildefer
    cost              how long a regular expression may take at worst
    first_sets        the characters with which a match can begin
    literals          the tree that `re` makes of a regular expression, and the texts that every match must contain

Imports point down: index > cost, process_client > process, first_sets > literals.
"""
