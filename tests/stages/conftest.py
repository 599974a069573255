"""Makes this folder's helper modules importable, as `tests/conftest.py` does for `tests`."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
