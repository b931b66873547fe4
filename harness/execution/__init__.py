"""How the runs of a sweep reach the hardware.

A `Sweep` comes in; `RunRecord`s in a results directory go out. The runs are done by this process, by
worker processes, by the ranks of a launcher or by a Ray cluster; `plan_sweep` and `run_sweep` are the door.
"""
