"""What is stored, and how. No torch here.

`RunSpec` and `RunRecord` are defined here, and the `Store` writes and reads a directory of them. The
rule that chooses a learning rate is here too, because it is a fact about records: it sees dev results only.
"""
