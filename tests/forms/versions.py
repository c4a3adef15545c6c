"""What older versions of torch do differently."""

from __future__ import annotations

import torch

BEFORE_2_14 = tuple(map(int, torch.__version__.split(".")[:2])) < (2, 14)
