"""Experiments that couple what a run does not: SGD and SGDM side by side on the same batches.

Settings come in; records of cells, a CSV file and a plot go out. Each study has a file of its own, with
its own short loop on the same pure functions that runs use.
"""
