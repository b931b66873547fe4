"""One run: a `RunSpec` comes in, a `RunRecord` goes out.

`finetune.py` holds the training loop and reads from top to bottom; `steps.py` holds what one step does.
What a process keeps between runs (models, tokenised splits) is in `session.py`, which hands each run
its parts as one bundle (`run_parts.py`).
"""
