"""Bytes on disk: runs, activation shards, the feature index and assets. Knows nothing about models or latents."""
