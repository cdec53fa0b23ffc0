"""Functions as deferred work: `@task`, then `rebuild.defer(blog_id=7)`.

A call travels as a message, its arguments as JSON, and is handled by the same pool. The code is in
`maildefer.handling.tasks.task` and `maildefer.handling.tasks.call`.
"""

from __future__ import annotations

from maildefer.handling.tasks.task import ArgumentsRefused, Task, task

__all__ = ["ArgumentsRefused", "Task", "task"]
