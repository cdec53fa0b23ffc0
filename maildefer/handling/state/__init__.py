"""The state of each conversation, kept between messages.

storage        the interface, and storages for one process
directory      a storage that hosts share: a small file for each conversation
mapping        a small shared mapping, kept in the same way
thread_locks   one handler at a time for each conversation, among the threads of one process

Imports point down: mapping > directory > storage; thread_locks imports none of them.
"""
