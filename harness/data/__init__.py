"""The rows of a task, and the few-shot splits drawn from them. No torch here.

A task comes in. `TaskData` (checked examples, their origin and fingerprint) and splits (positions of
examples) go out. `load.load_task_data` is the door, for texts and for images.
"""
