"""Whether somebody's leaderboard is what its records say.

A folder or an archive that may be hostile comes in; a list of departures goes out, which is empty where
all is right.
"""
