"""From words to runs. No torch here.

Flags, a sweep file and defaults come in; a checked `Sweep` goes out, and from it the `RunSpec`s of all
runs, with the grid of each optimizer.
"""
