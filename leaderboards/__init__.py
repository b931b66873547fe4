"""From records to tables and verdicts.

Results directories or archives come in. Rows, paired comparisons and their verdicts go out, as CSV, page,
plots and text, or as a commit that publishes them. Nothing here loads torch.
"""
