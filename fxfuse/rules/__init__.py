"""The rules, in the order in which they are tried."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from fxfuse.operators.joins import Concatenation
from fxfuse.operators.noops import Noop
from fxfuse.operators.roles import AffineSource, Linear, View
from fxfuse.operators.spatial import Pad
from fxfuse.operators.sums import Sum
from fxfuse.rules.drop_noops import drop_noops
from fxfuse.rules.fold_constants import fold_constants
from fxfuse.rules.fold_downstream import fold_downstream
from fxfuse.rules.fold_padding import fold_padding
from fxfuse.rules.fold_upstream import fold_upstream
from fxfuse.rules.join_constants import join_constants
from fxfuse.rules.merge_branches import merge_branches
from fxfuse.rules.merge_chain import merge_chain
from fxfuse.rules.merge_concatenated import merge_concatenated
from fxfuse.rules.stack_parallel import stack_parallel

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import fx

    from fxfuse.graph.graph import Graph
    from fxfuse.graph.plan import Plan

Rule: TypeAlias = "Callable[[Graph, fx.Node], Plan | None]"

DEFAULT_RULES: tuple[Rule, ...] = (
    drop_noops,  # identity and dropout in evaluation mode go, where the graph itself is the result
    fold_upstream,  # conv -> norm: the norm goes into the weights before it
    fold_downstream,  # norm -> conv: else into the weights of all who read it
    fold_constants,  # a weight that is computed from parameters alone becomes a parameter
    fold_padding,  # pad -> conv: the convolution pads as much more, where both pad zeros
    join_constants,  # (x * a + b) * c + d: one product and one sum, where no layer takes them in
    merge_chain,  # conv -> conv, linear -> linear: one layer, where that is exact and costs no more
    merge_branches,  # conv(x) + conv(x) + norm(x) + x: one convolution
    merge_concatenated,  # cat of conv(x) and conv(x): one convolution
)
# Exact as well, but whether it pays depends on the model and the machine.
ON_REQUEST: tuple[Rule, ...] = (stack_parallel,)  # q(x), k(x), v(x): one layer, and parts of what it gives
MERGES: tuple[Rule, ...] = (merge_chain, merge_branches, merge_concatenated, stack_parallel)
RULES = {rule.__name__: rule for rule in (*DEFAULT_RULES, *ON_REQUEST)}


class Start(NamedTuple):
    """Where a rule can start, so that it need not be asked about most nodes.

    Attributes:
        role: what a node has to be, perhaps among other things.
        reads: what one of its inputs has to be; nothing for any.
        modules: whether it may be the call of a module.
    """

    role: type[View]
    reads: tuple[type[View], ...] = ()
    modules: bool = True


STARTS: dict[int, Start] = {
    id(rule): start
    for rule, start in (
        (drop_noops, Start(Noop)),
        (fold_upstream, Start(AffineSource)),
        (fold_downstream, Start(AffineSource)),
        (fold_constants, Start(Linear, modules=False)),  # the weights of a module are parameters: nothing computed them
        (fold_padding, Start(Pad)),
        (merge_chain, Start(Linear, reads=(Linear, Noop))),  # most layers read an activation
        (merge_branches, Start(Sum)),
        (merge_concatenated, Start(Concatenation)),
        (stack_parallel, Start(Linear)),
        (join_constants, Start(AffineSource, reads=(AffineSource,), modules=False)),
    )
}
