"""maildefer measured beside what else could be used: `python -m benchmarks`.

Every comparison is one interleaved run (A B C D A B C D …), so that a slow minute of the machine hits all contenders;
ratios are taken pair by pair, and their median counts.
"""
