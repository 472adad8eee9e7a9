"""A stand-in for matplotlib, whose colour maps SAEDashboard makes on import, for HTML that is not made here."""

import sys
from types import ModuleType, SimpleNamespace

stand_in = ModuleType("matplotlib")
stand_in.colors = SimpleNamespace(LinearSegmentedColormap=SimpleNamespace(from_list=lambda *_: None))
sys.modules["matplotlib"] = stand_in
