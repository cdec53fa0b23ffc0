"""Entries as `queue` and `dead` name, choose, change and print them.

    selection    the arguments that choose entries, and which entries those are
    patterns     addresses and texts that they look for
    copies       pushing a message again, replayed or edited
    editing      the editor for a dead letter
    dry_run      running its handlers with all caught that they push and send
    actions      doing something to each of those that are chosen
    listing      printing entries
    shape        counting them by domain and age

Imports point down: actions, shape, editing > copies, dry_run > selection > listing, patterns.
"""
