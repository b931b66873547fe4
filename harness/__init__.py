"""From a sweep to records: plan, fine-tune, store. `run.py` starts it as a script."""

__version__ = "0.1.0"
