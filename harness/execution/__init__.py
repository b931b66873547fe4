"""How the runs of a sweep reach the hardware.

A `Sweep` comes in; `RunRecord`s in a results directory go out. This process, worker processes, the ranks of
a launcher or a Ray cluster do the runs. Call `plan_sweep` and `run_sweep`.
"""
