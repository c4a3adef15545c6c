"""What is left of the weights and biases of layer norms, and of layer scales, in models that have them.

Each model is fused as it is traced and as it is exported, in float64, with random affines, and compared with itself.
"""

# ruff: noqa: INP001, T201 - a script

from __future__ import annotations

import re
import sys
from dataclasses import dataclass

import common
import torch
from torch import nn
from torch.export import ExportedProgram
from tqdm import tqdm

from fxfuse import Report, fx_fuse
from fxfuse.cli import models

DEFAULT = (
    *("convnext_tiny", "swin_t", "vit_b_32", "timm:convnext_atto", "timm:swin_tiny_patch4_window7_224"),
    *("timm:vit_tiny_patch16_224", "timm:deit3_small_patch16_224", "timm:cait_xxs24_224"),
)
NORMS = (nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)
SCALE = re.compile(r"(^|\.)(layer_scale|gamma)(_\d)?$")  # ends the name of a layer scale


@dataclass(frozen=True)
class Row:
    """One model in one form: how many affines there were and are, and the largest error relative to the output."""

    model: str
    form: str
    norms: int
    norms_left: int
    scales: int
    scales_left: int
    error: float
    reasons: tuple[str, ...]


def _scales(module: nn.Module) -> int:
    return sum(SCALE.search(name) is not None for name, _ in module.named_parameters())


def measure(name: str, form: str) -> Row:
    """Fuse one model."""
    torch.manual_seed(0)
    model = models.build(name, models.find(name)).double()
    for parameter in model.parameters():
        # Affines far from the identity, and no last layer that starts with zeros.
        if parameter.numel() == max(parameter.shape, default=1) or not parameter.any():
            nn.init.normal_(parameter)
    x = torch.randn(2, 3, 224, 224, dtype=torch.float64)
    with torch.no_grad():
        expected = model(x)
    fused = fx_fuse(model) if form == "traced" else fx_fuse(torch.export.export(model, (x,)))
    report = Report.of(fused)
    run = fused.module() if isinstance(fused, ExportedProgram) else fused
    with torch.no_grad():
        error = float((run(x) - expected).abs().max() / expected.abs().max())
    norms = [path for path, m in model.named_modules() if isinstance(m, NORMS) and m.weight is not None]
    gone = {decision.path for decision in report.folded}
    reasons = tuple(f"{d.path}: {d.detail}" for d in report.skipped if d.path in norms)
    return Row(name, form, len(norms), len(set(norms) - gone), _scales(model), _scales(run), error, reasons)


def main() -> None:
    """Measure model by model."""
    options = common.parse(common.parser(__doc__))
    names = options.models or DEFAULT
    rows = [measure(name, form) for name in tqdm(names, file=sys.stderr) for form in ("traced", "exported")]
    cells = [
        [r.model, r.form, f"{r.norms} -> {r.norms_left}", f"{r.scales} -> {r.scales_left}", f"{r.error:.1e}"]
        for r in rows
    ]
    common.show(cells, ["model", "form", "norm affines", "layer scales", "error"])
    for row in rows:
        print(*(f"{row.model}, {row.form}: {reason}" for reason in row.reasons), sep="\n")
    common.write(options.json, rows)


if __name__ == "__main__":
    main()
