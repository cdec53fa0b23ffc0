"""Change a directory again within the clock tick of its last change: same_tick.py SOURCE DESTINATION.

The tick is brought back by setting this guest's clock to the time of that change, for as long as it takes to rename.
"""

import os
import sys
import time

source, destination = sys.argv[1:]
directory = os.path.dirname(destination)
changed_at = os.stat(directory).st_ctime_ns
began, real = time.monotonic_ns(), time.time_ns()
try:
    for _ in range(1000):
        time.clock_settime_ns(time.CLOCK_REALTIME, changed_at)
        os.rename(source, destination)
        if os.stat(directory).st_ctime_ns == changed_at:
            break
        os.rename(destination, source)
    else:
        sys.exit("the clock ticks too fast")
finally:
    time.clock_settime_ns(time.CLOCK_REALTIME, real + time.monotonic_ns() - began)
