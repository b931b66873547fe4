"""Adding checked results to a published leaderboard, in a git clone or on the hub.

A results directory comes in. One commit with tables, page and records goes out.
"""
