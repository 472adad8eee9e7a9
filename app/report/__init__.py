"""The evaluation as one page: figures with intervals and controls; several dictionaries side by side."""
