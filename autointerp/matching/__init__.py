"""Two dictionaries over the same tokens: which latents are the same, which are alone, which were split."""
