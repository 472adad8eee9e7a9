"""What a dictionary is worth: parts that measure it, one file each, and the job that runs them."""
