"""The feature index: one sparse pass over a harvest, and every statistic, context and relation of every latent."""
