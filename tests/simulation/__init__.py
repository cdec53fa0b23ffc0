"""The deterministic simulation: the real code of the queue, interleaved at every filesystem call by a seed.

scheduler   threads as greenlets, simulated time, processes that die and freeze
server      the shared filesystem in memory, and what a power cut leaves of it
client      one host's view of it: the `System` of each process, with all that a network does to a request
weather     what goes wrong in one schedule, drawn from its seed
stand_ins   events, sockets and inotify on simulated time
stage       where these and the simulated clock stand in for the real ones
hosts       machines; supervisors, workforces, keepers, workers and handlers are what runs on them, mostly the real code
oracle      the invariants, looked at with each request that the server carries out: by transitions for entries,
            beats for leases, conversations for tokens, periodic for ticks, looks for listings, and final in the end;
            readings of names
disasters   what is done to them
schedule    one seed's run, from its first push to the last look
explore     very many seeds, in many sittings
mutants     planted bugs, each of which must be caught; table prints by what
"""
