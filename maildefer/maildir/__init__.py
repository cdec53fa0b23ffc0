"""The queue on disk: names, layout, durable writes, transitions, leases, scans.

Pure: the filesystem, the clock and randomness come in as a `System`; nothing here knows a process, a setting or mail.
"""
