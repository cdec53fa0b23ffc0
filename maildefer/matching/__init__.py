"""From an address to the routes that may match it, within a limit of time.

    index             which of many patterns may match an address, found without trying each
    process_client    asks a matching process, for threads, which no signal can interrupt
    process           that process; started by its path, so it imports nothing of maildefer
    cost              how long a regular expression may take at worst
    literals          texts that every match must contain; first_sets: what a match can begin with
    regex_tree        the tree that `re` makes of a regular expression

Imports point down: index > cost, process_client > first_sets, literals > regex_tree.
"""
