"""Pre-trained models and networks from scratch, and how they read a batch.

A model's name comes in; a `LoadedModel` goes out. Its weights can be set back to those in the file, and
its new parts are drawn from a seed. Files are found without torch.
"""
