"""From a message to user code and back: projects, routes, handlers, outcomes.

    application       a loaded project: settings, handler modules, and the routes of each queue
    dispatch          a message to the handlers of a queue, by itself or on a loop
    run_handlers      runs what has matched, and makes one outcome of the results
    handoff           to which queue a handed-on message goes
    routes            the table of routes, and Router.deliver; patterns: a route's pattern as a regular expression
    results           what a returned value and a raised exception mean
    outcomes          what an attempt ended in, as values; retry: when a deferred message is tried again
    decorators        @route, @stateless, @batch, @bounce_to and the others
    handler_marks     what the decorators write on a function
    handler_check     what is wrong with a handler before it runs; handoff_check: handoffs that lead nowhere
    undeliverable     what a program's undeliverable queue is given
    calls/            one call of a handler, or of a @batch function with many messages
    project/          where a project is, its settings, the import of its modules, the queues that paths mean
    policy/           the project's policy for the front end, in a process of its own
    limits/           @concurrency and @rate: so many at a time, or in a period, over all hosts
    outgoing/         delivery of what is in the outgoing queue, for `maildefer.handlers.outgoing`
    tasks/            functions as deferred work: @task
    periodic/         schedules of tasks as instants
    state/            conversation states: storages and locks

An attempt: dispatch > run_handlers > routes > calls > results > outcomes.
Imports point down: handoff_check > application > dispatch > run_handlers > handoff > tasks, decorators > routes >
calls, policy > outgoing > handler_check, retry > limits > results > outcomes > state > project, handler_marks,
patterns, undeliverable, periodic.
"""
