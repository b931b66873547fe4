"""Experiments in which models train side by side, for example SGD and SGDM on the same batches.

Settings come in; records of cells, tables and a plot go out. Each study has its own file, with a short loop
of its own on the pure functions that runs use too. `study.run_study` runs any of them.
"""
