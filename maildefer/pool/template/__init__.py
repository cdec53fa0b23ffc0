"""The template: a process that loads the application once and forks the workers, which share its memory.

    process        the life of a template, and of a worker until it is one
    messages       what the supervisor and a template say to each other
    modules        what every worker imports

A worker's start: supervisor/templates > process > worker/run.
Imports point down: process > messages, modules.
"""
