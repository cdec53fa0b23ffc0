"""Messages for `async def` handlers, many at a time in one worker. Only a pool with such handlers imports these.

    async_worker   a worker that begins and settles them, beside what other workers do
    flights        those that are in flight: their time limits, the turns of the event loop
    flight_tokens  the tokens and slots that each of them has
    company        how many may be in flight together

Imports point down: async_worker > flight_tokens > flights > company.
"""
