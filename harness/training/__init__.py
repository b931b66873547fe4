"""One run: a `RunSpec` comes in, a `RunRecord` goes out.

`finetune.py` holds the training loop and reads from top to bottom. What a process keeps between runs
(models, tokenised splits) is in `session.py`.
"""
