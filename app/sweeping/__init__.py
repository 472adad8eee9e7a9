"""A sweep of steering for people: on the terminal, and as a page that opens offline."""
