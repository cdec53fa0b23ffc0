"""The deterministic simulation: the real code of the queue, interleaved at every filesystem call by a seed.

scheduler   threads as greenlets, simulated time, processes that die and freeze
server      the shared filesystem in memory, and what a power cut leaves of it
client      one host's view of it: the `System` of each process, with all that a network does to a request
faults      what goes wrong in one schedule, drawn from its seed
stand_ins   events, sockets and inotify on simulated time
installed   puts these and the simulated clock in the place of the real ones
hosts       machines; supervisors, workforces, keepers, workers, batches, handlers and consumers are what runs on them,
            mostly the real code
oracle      the invariants, checked at each request that the server carries out: by transitions for entries,
            beats for leases, conversations for tokens, periodic for ticks, uniqueness for unique keys,
            keyed_requests for requests, outputs for what handlers send, journals for records of pushes and ends,
            limits for what runs at a time, doubt_rules for listings, final in the end; histories holds what became of
            each entry, name_cache parses each name once
disasters   kills, freezes, cuts off and restarts processes, hosts and the server
schedule    one seed's run, from its first push to the last check
explore     very many seeds, in several runs
mutants     planted bugs (bugs, batchbugs, limitbugs …), each of which must be caught; table prints by what
"""
