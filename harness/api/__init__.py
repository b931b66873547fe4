"""What `import momentum_bench as mb` shows: the command line's work as Python functions.

Settings come in; records and leaderboards go out as Python objects. Nothing here exits the process: what a
user got wrong is a `UserError`. No torch is loaded before a sweep runs.
"""
