"""The protocol of `docs/design.md`, model-checked: every interleaving within given numbers of faults.

    explore     the search, breadth first, and what it proves: safety in each step, an end in reach of each state
    pool        claims, settles, leases, beats, fences, audit and reclaim
    files       small models: pushes, burials, handoffs, markers, a late lease, an outage, silence
    runs        the numbers of faults, the planted weaknesses, and what is expected of each
    __main__    runs them: `make model`

Nothing here imports the package. What runs in production is explored by `tests/simulation`, at random and in depth.
"""
