"""What does a latent mean, and is that true: evidence, explanations, scores."""
