"""The optimizers that are compared, their learning-rate axis, and proof of what ran.

A name and hyperparameters come in. An `OptimizerEntry` goes out, which builds the optimizer and converts
effective rates. `live` checks that the running object is the optimizer that was asked for.
"""
