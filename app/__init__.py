"""What a person touches: command line, dashboard, notebook."""
