"""The process that answers for health and metrics by HTTP (`health_config`, extra `web`), and that runs `alerts`.

Executed as `python -m maildefer.monitoring` by a supervisor, or by a front end without one. It asks its starter through
the status socket, as `maildefer probe` does, and looks at the queues in children with a time limit, so that it answers
whatever a mount does. It stores nothing.

    options      its command line
    endpoints    `/live`, `/ready` and `/metrics`
    alerts       what a person is told by a command of the settings
    metrics      the metrics, from what the looks find
    looks        what it asks and looks at: one look for all who want it at a time

Imports point down: __main__ > endpoints > metrics > looks; alerts > looks; options.
"""
