"""The report of an interpretation: a page that opens offline, and the same figures on the terminal."""
