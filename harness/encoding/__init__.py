"""Examples as token ids, and token ids as batches.

Examples, a task's prompt and a tokenizer come in; `Encoded` splits and `Batch`es of tensors go out.
`images.py` does the same for images.
"""
