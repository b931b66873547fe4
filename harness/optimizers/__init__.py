"""The optimizers that are compared, their learning-rate axis, and proof of what ran.

A name and hyperparameters come in; an `OptimizerEntry` goes out that builds the optimizer and converts
effective rates. `live` reads from the running object whether it is the one that was asked for.
"""
