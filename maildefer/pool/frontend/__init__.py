"""The front ends of a pool: listening sockets, and the intake processes on them.

    frontends        the supervisor's front ends
    config           `receiver_config` and `web_config`, checked
    listeners        binds sockets, or takes them from systemd
    process_group    the processes of one front end, kept alive
    launcher         one intake process for a boot module
    status_report    what an intake process says of itself, parsed within limits

Imports point down: frontends > config > process_group, launcher > listeners, status_report.
"""
