"""Pre-trained models and networks from scratch, and how they read a batch.

A model's name comes in; a `LoadedModel` goes out, whose weights can be set back to what the file holds
and whose new parts are drawn from a seed. Files are found without torch.
"""
