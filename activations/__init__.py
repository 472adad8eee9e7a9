"""Text to activations, and edits back into the model."""
