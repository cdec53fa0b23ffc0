"""From a message to user code and back: projects, routes, handlers, outcomes.

    application       a loaded project: settings, handler modules, and the routes of each queue
    routes            the table of routes, and Router.deliver; patterns: a route's pattern as a regular expression
    dispatch          a message to the handlers of a queue, and their results to one outcome
    step              a handler with its marks looked up; batch: the same for @batch functions
    results           what a returned value means; exceptions: what a raised one means
    outcomes          what an attempt ended in, as values; retry: when a deferred message is tried again
    decorators        @route, @stateless, @batch and the others; bounce_handlers: @bounce_to
    handler_marks     what the decorators write on a function
    handler_check     what is wrong with a handler before it runs
    undeliverable     what a program's undeliverable queue is given
    project/          where a project is, its settings, the import of its modules, the queues that paths mean
    handoff/          to which queue a handed-on message goes, and handoffs that lead nowhere
    policy/           the project's policy for the front end, in a process of its own
    tasks/            functions as deferred work: @task
    state/            conversation states: storages and locks

An attempt: dispatch > routes > step > results > outcomes.
Imports point down: tasks, decorators > application > dispatch > handoff > routes > batch > step > results, outcomes >
handler_marks > project.
"""
