"""Stands in for nnsight in this folder's scripts: dictionary_learning imports it for language models, which none needs.

The real one wants an older transformers than the other peers.
"""


class LanguageModel:
    """A name to import."""
