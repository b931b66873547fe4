"""What is stored, and how. No torch here.

`RunSpec` and `RunRecord` are defined here; the `Store` writes and reads a directory of them. The
selection rule is here as well, because it is a fact about records: it sees dev results only.
"""
