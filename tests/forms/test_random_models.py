"""Random models through every form of graph: the same outputs, and as many norms and constants left as when traced."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from tests.forms.exceptions import FOLDS_OF_RANDOM_MODELS
from tests.graph_forms import FORMS
from tests.graph_reading import live, name_of
from tests.helpers import run, values
from tests.random_models import INPUT, SHAPES, Shape
from tests.test_random_graphs import assert_close

if TYPE_CHECKING:
    from torch import fx


def is_whole(shape: Shape) -> bool:
    """Whether all forms can capture it; those of which only fxfuse can are in test_random_graphs.py."""
    return shape.root != "branching" and all(step.kind != "branching" for step in shape.steps)


def is_used(shape: Shape) -> bool:
    """Whether the output needs every step: some forms drop what nobody needs before the pass sees it."""
    needed = set(range(len(shape.steps) + 1)[-shape.outputs :])
    for number in range(len(shape.steps), 0, -1):
        if number in needed:
            needed |= set(shape.steps[number - 1].picked(number))
    return len(needed) == len(shape.steps) + 1


def examples(count: int) -> settings:
    """The same examples every time; nothing shrinks or explains them, for each costs half a second."""
    return settings(
        max_examples=count,
        deadline=None,
        derandomize=True,
        phases=[Phase.generate],
        suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow],
    )


def left(graph_module: fx.GraphModule) -> Counter[str]:
    """How many norms, products and differences the output of a graph is computed by."""
    nodes = [node for node in live(graph_module) if node.op.startswith("call")]
    called = [
        type(graph_module.get_submodule(str(n.target))).__name__ if n.op == "call_module" else name_of(n) for n in nodes
    ]
    short = [name.lower().replace("_", "").partition(".")[0] for name in called]
    kinds = {"mul": "mul", "sub": "sub", "rsub": "sub", "neg": "neg", "div": "div"}
    return Counter("norm" if "batchnorm" in name else kinds[name] for name in short if name in kinds or "norm" in name)


def assert_same_in_every_form(shape: Shape) -> None:
    """Every form gives what the model gives, and leaves what the traced form leaves."""
    model, x = shape.build(), values(*INPUT)
    expected = run(model, (x,))
    counts = {}
    for name, form in FORMS.items():
        fused = form.fuse(model, (x,))
        assert_close(expected, tuple(fused.run(x)), rtol=1e-12)
        counts[name] = left(fused.graph_module)
    for name, count in counts.items():
        excused = any(exception.applies(shape, name) for exception in FOLDS_OF_RANDOM_MODELS)
        assert count == counts["traced"] or excused, f"{name}: {count} left, traced: {counts['traced']}"


SHAPES_OF_ALL_FORMS = SHAPES.filter(lambda shape: is_whole(shape) and is_used(shape))


@pytest.mark.filterwarnings("ignore:.*deprecated")
@examples(24)
@given(shape=SHAPES_OF_ALL_FORMS)
def test_every_form_gives_the_same_and_folds_the_same(shape: Shape) -> None:
    assert_same_in_every_form(shape)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*deprecated")
@examples(90)
@given(shape=SHAPES_OF_ALL_FORMS)
def test_many_more_of_them(shape: Shape) -> None:
    assert_same_in_every_form(shape)
