"""Whether a difference between two optimizers was shown.

Paired differences of test scores come in, and the number of seeds at which somebody looks at them. Intervals,
p-values, verdicts and advice on the number of seeds go out. Nothing here knows records, files or optimizers.
"""
