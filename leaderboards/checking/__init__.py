"""Whether a leaderboard is what its records give.

A folder or an archive comes in, which may be hostile. A list of departures goes out, which is empty if
everything is right.
"""
