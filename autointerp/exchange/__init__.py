"""A feature index in other tools' formats, and theirs as an index or as explanations: a file for each way."""
