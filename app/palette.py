"""Colours and dashes that tell lines apart, in every figure the same."""

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#888888")
"""Okabe and Ito's palette: told apart by every common kind of colour vision."""
DASHES = ("solid", "dash", "dot", "dashdot", "longdash")
