"""One queue on the export, for every client."""

queues = {"/mnt/nfs/queue": ["workers.note"]}
router_defaults = {"host": ".+"}
workers = 2
