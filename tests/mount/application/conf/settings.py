"""One queue on the export, for every client."""

queues = {"/mnt/nfs/queue": ["workers.note", "workers.figure"]}
router_defaults = {"host": ".+"}
workers = 2
