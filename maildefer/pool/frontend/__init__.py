"""The front ends of a pool: listening sockets, and the intake processes on them.

    frontends        the supervisor's front ends
    config           `receiver_config` and `web_config`, checked
    process_group    the processes of one front end, kept alive
    health_port      the address of `health_config`, and the process that answers there
    monitor_launcher   that process for a program without a supervisor
    launcher         one intake process for a program without a supervisor
    log_sink         the receiver of `maildefer log`; smtp_on_stdio: `sendmail -bs`
    intake_command   command line, environment and descriptors of an intake process
    listeners        binds sockets, or takes them from systemd
    status_report    what an intake process says of itself, parsed within limits

Imports point down: frontends > config, monitor_launcher > health_port > process_group; log_sink, smtp_on_stdio >
launcher; all > the other modules.
"""
