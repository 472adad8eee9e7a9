"""One command a file: `Args` and `run(args)`."""
