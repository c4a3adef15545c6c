"""Lets a test import files of the package that need no torch where there is none, as a plugin of pytest.

``python -m pytest -o addopts= --noconftest -p tests.support.without_torch tests/capture/test_frames.py``
"""

from __future__ import annotations

import sys
import types
from pathlib import Path

package = types.ModuleType("fxfuse")
package.__path__ = [str(Path(__file__).parents[2] / "fxfuse")]  # without the names of ``__init__``, which need torch
sys.modules["fxfuse"] = package
