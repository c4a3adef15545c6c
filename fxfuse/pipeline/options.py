"""What the user asked for."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, TypedDict

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from torch import Tensor

    from fxfuse.capture.hooks import Hooks
    from fxfuse.rules import Rule

Structure = Literal["graph", "module"]


class GraphOptions(TypedDict, total=False):
    """The keywords of ``fuse_graph``."""

    rules: Iterable[Rule | str]
    allow_copies: bool
    allow_growth: bool
    guards: bool
    hooks: Hooks


class FuseOptions(GraphOptions, total=False):
    """Those of ``fx_fuse``."""

    structure: Structure | None
    inplace: bool


@dataclass(frozen=True)
class Options:
    """What the user asked for; see ``fx_fuse``.

    Attributes:
        constants: what is passed for some placeholders at every call; see ``fuse_graph``.
        hooks: "keep" leaves what is in modules with hooks, "observe" says that hooks only look.
    """

    rules: tuple[Rule, ...]
    structure: Structure | None = None
    allow_copies: bool = True
    guards: bool = True
    inplace: bool = False
    allow_growth: bool = False
    constants: Mapping[str, Tensor] = field(default_factory=dict)
    hooks: Hooks = "keep"
