"""Calls of tasks at set times: what a task's decorator says, as instants.

    schedule    an interval or a cron line as instants; which of them are to be made up for
    table       a periodic task as a value, and what its decorator's arguments mean

The keeper of each pool pushes the calls (pool/keeper/ticker), and maildir/upkeep/ticks has each pushed once.
Imports point down: table > schedule.
"""
