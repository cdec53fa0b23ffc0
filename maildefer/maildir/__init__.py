"""The queue on disk: names, layout, durable writes, and every transition of an entry.

The filesystem, the clock and randomness are passed in as a `System`; no module here knows processes, settings or mail.

    system            filesystem, clock and randomness, in one value that the simulation replaces
    layout            the folders of a queue: makes, opens and mends it; control_folder: its folder `.maildefer/`
    names             builds and parses the names of entries and leases
    durable           writes that survive a power cut (I1)
    push              makes an entry in `new/`, or in `.later/`
    drafts/           what is made in `tmp/`, and renamed to where it belongs
    due               when an entry is due, by the mount's time
    claims            claims an entry by one rename, and settles it by one more or by unlink
    pop               takes an entry at most once, without a lease
    doubt             settles a doubtful reply by fresh listings
    scan              lists folders lazily; reading: reads the bytes of a claimed entry
    reasons           the file that says why an entry was buried
    journal           the record of pushes and settles; journal_file: its files, appended to or mapped
    outbox/           what handlers send: it is seen when they have returned, all of it or nothing
    idempotency/      requests that are carried out once, however often they come
    markers/          at most one entry for each name at a time
    rights/           modes, and safe work in folders that other users may write to
    upkeep/           leases, and the chores of a keeper: reclaim, promote, sweep
    operator/         work of commands on single entries and whole queues

The life of an entry: push > claims > upkeep/promote or upkeep/reclaim > claims.
Imports point down: upkeep, operator > outbox > idempotency > claims, push, pop > markers > drafts > due > journal,
doubt, reasons > layout > control_folder > durable, scan > names, reading, rights > system.
"""
