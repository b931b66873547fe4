"""From a sweep to records: plan, fine-tune, store. `run.py` is the way in."""

__version__ = "0.1.0"
