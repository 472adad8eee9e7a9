"""Puts this folder's helpers within reach."""

import sys
from pathlib import Path

# test folders are no packages, and importlib mode leaves them off sys.path
sys.path.insert(0, str(Path(__file__).parent))
