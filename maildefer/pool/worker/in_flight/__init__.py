"""Messages for `async def` handlers, many at a time in one worker. Only a pool with such handlers imports these.

    async_worker   a worker that begins and settles them, beside what other workers do
    flights        those that are in flight: their steps, the turns of the event loop
    time_limits    their time limits, and the worker's deadline
    flight_tokens  the tokens and slots that each of them has
    company        how many may be in flight together

Imports point down: async_worker > flight_tokens > flights > company, time_limits.
"""
