"""Checked results on their way to others: a git clone or the hub.

Results directories come in; one commit with CSV, page and records goes out.
"""
