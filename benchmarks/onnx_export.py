"""What ``fxfuse export`` writes as ONNX: batch norms left, and how far onnxruntime is from the original model.

The exporter of torch folds norms too. The columns "unfused" say what it leaves of the original model by itself.
"""

# ruff: noqa: INP001, T201 - a script, which prints

from __future__ import annotations

import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import common
from tqdm import tqdm

from fxfuse.cli import export
from fxfuse.cli.settings import Export

# As small as the model takes; the others take 64.
SIDES = {"vit": 224, "maxvit": 224, "inception": 96}


@dataclass(frozen=True)
class Row:
    """Counts of nodes, and the largest relative error of any output."""

    model: str
    nodes_unfused: int
    nodes_fused: int
    norms_unfused: int
    norms_fused: int
    error: float


def measure(name: str, batch: int) -> Row:
    """Export one model, into a folder that goes again."""
    side = SIDES.get(name.partition("_")[0], 64)
    with tempfile.TemporaryDirectory() as folder:
        settings = Export(name, Path(folder) / "model.onnx", (batch, 3, side, side))
        result = export.export(settings)
    before, after = result.alone, result.after
    error = max(result.errors.values())
    return Row(name, before.nodes, after.nodes, before.norms, after.norms, error)


def main() -> None:
    """Measure model by model, of torchvision's classifiers those up to a size."""
    parser = common.parser(__doc__)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--megabytes", type=int, default=400, help="of float32 weights, at most; default: %(default)s")
    options = common.parse(parser)
    names = options.models or common.classifiers(options.megabytes * common.MEGABYTE)
    rows = [measure(name, options.batch) for name in tqdm(names, file=sys.stderr)]
    headers = ["model", "nodes, unfused", "nodes, fused", "norms, unfused", "norms, fused", "error"]
    numbers = [(r.nodes_unfused, r.nodes_fused, r.norms_unfused, r.norms_fused, f"{r.error:.1e}") for r in rows]
    common.show([(row.model, *map(str, cells)) for row, cells in zip(rows, numbers, strict=True)], headers)
    left = sum(row.norms_fused > 0 for row in rows)
    print(f"\n{left} of {len(rows)} with a norm left; largest error {max(row.error for row in rows):.1e}")
    common.write(options.json, rows)


if __name__ == "__main__":
    main()
