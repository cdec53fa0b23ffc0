"""Functions as deferred work: `@task`, then `rebuild.defer(blog_id=7)`.

A call travels as a message, its arguments as JSON, and is handled by the same pool. `register_type` lets them be of
other types. The code is in `maildefer.handling.tasks.declare`, `maildefer.handling.tasks.task` and
`maildefer.handling.tasks.arguments`.
"""

from __future__ import annotations

from maildefer.handling.tasks.arguments import ArgumentsRefused, register_type
from maildefer.handling.tasks.declare import task
from maildefer.handling.tasks.task import Task

__all__ = ["ArgumentsRefused", "Task", "register_type", "task"]
