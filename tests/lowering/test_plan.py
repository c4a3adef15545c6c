"""What a kernel takes in, and which values it may write into: the plans run in plain torch and in float64."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fxfuse import Report, lower
from fxfuse.cli.models import randomize
from fxfuse.lowering.lower import lowered
from fxfuse.report.lowered import LoweringReport
from tests.support.helpers import Model
from tests.support.reference_emitter import ReferenceEmitter

from .models import Net, gap, image, made, planned

if TYPE_CHECKING:
    from collections.abc import Callable


class Given(Model):
    """A model with two convolutions and a function that is its forward."""

    def __init__(self, function: Callable[..., Any], **layers: Any) -> None:
        two = {"a": nn.Conv2d(4, 4, 3, padding=1), "b": nn.Conv2d(4, 4, 3, padding=1)}
        super().__init__(**{**two, **layers})
        self.__dict__["function"] = function

    def forward(self, x: Tensor) -> Any:
        return self.__dict__["function"](self, x)


def report(model: nn.Module) -> LoweringReport:
    found = Report.of(model)
    assert isinstance(found, LoweringReport)
    return found


def kernels(function: Callable[..., Any], **layers: Any) -> list[tuple[str, tuple[str, ...], bool]]:
    """What is taken in, in a model that computes what it should, in plain torch and by the kernels."""
    x, model = image(2, 4, 6, 6), Given(function, **layers).eval()
    randomize(model)
    # Not fused: branches would be merged.
    plain, double = torch.fx.symbolic_trace(model), torch.fx.symbolic_trace(copy.deepcopy(model).double())
    planned = lowered(double, x.double(), exact_nan=False, emitter=ReferenceEmitter())
    quick = lower(plain, x)
    for _ in range(2):
        assert gap(planned(x.double()), double(x.double())) < 1e-14
        assert gap(quick(x), plain(x)) < 1e-5
    return [(one.path, one.takes, one.in_place) for one in report(planned).kernels]


def test_an_activation() -> None:
    assert kernels(lambda m, x: F.silu(m.a(x))) == [("a", ("silu",), False)]
    assert kernels(lambda m, x: m.b(F.relu(m.a(x)))) == [("a", ("relu",), False), ("b", (), False)]
    assert kernels(lambda m, x: m.a(x).relu_()) == [("a", ("relu",), False)]
    assert kernels(lambda m, x: F.gelu(m.a(x), approximate="tanh")) == [("a", ("gelu",), False)]
    assert kernels(lambda m, x: m.act(m.a(x)), act=nn.Hardtanh(-0.1, 0.2)) == [("a", ("hardtanh",), False)]


def test_an_activation_that_is_not_alone() -> None:
    def forward(m: Any, x: Tensor) -> Tensor:
        y = m.a(x)
        return F.relu(y) * y

    assert kernels(forward) == [("a", (), False)]


def test_the_sum_of_two_layers_goes_into_the_later_one() -> None:
    assert kernels(lambda m, x: m.a(x) + m.b(x)) == [("a", (), False), ("b", ("sum",), True)]
    assert kernels(lambda m, x: F.relu(m.b(x) + m.a(x))) == [("b", (), False), ("a", ("sum", "relu"), True)]


def test_a_sum_in_place() -> None:
    def forward(m: Any, x: Tensor) -> Tensor:
        y = m.a(x)
        return F.relu(y.add_(m.b(x)))

    assert kernels(forward) == [("a", ("sum", "relu"), True), ("b", (), False)]


def test_a_sum_in_place_into_a_value_that_is_read_elsewhere() -> None:
    def forward(m: Any, x: Tensor) -> Tensor:
        y = F.silu(m.a(x))
        z = y * 2
        y.add_(m.b(x))
        return y + z * y

    assert kernels(forward)[1] == ("b", (), False)


def test_the_input_is_never_written_into() -> None:
    assert kernels(lambda m, x: m.a(x) + x) == [("a", ("sum",), False)]
    assert kernels(lambda m, x: F.relu(m.a(x) + x.view(2, 4, 6, 6))) == [("a", ("sum", "relu"), False)]
    assert kernels(lambda m, x: m.a(x) + x[:, :, :1].expand(-1, -1, 6, -1)) == [("a", ("sum",), False)]


def test_a_value_that_is_read_afterwards_is_not_written_into() -> None:
    def forward(m: Any, x: Tensor) -> Tensor:
        y = F.relu(m.a(x))
        z = m.b(y * 2) + y
        return z * y

    assert kernels(forward) == [("a", ("relu",), False), ("b", ("sum",), False)]


def test_a_value_of_which_a_view_is_read_afterwards_is_not_written_into() -> None:
    def forward(m: Any, x: Tensor) -> Tensor:
        y = F.relu(m.a(x))
        part = y[:, :2]
        z = m.b(y * 2) + y
        return z.sum(1, keepdim=True) * part

    assert kernels(forward)[1] == ("b", ("sum",), False)


def test_a_value_that_the_layer_itself_reads_is_not_written_into() -> None:
    def forward(m: Any, x: Tensor) -> Tensor:
        y = F.relu(m.a(x))
        return m.b(y) + y

    assert kernels(forward)[1] == ("b", ("sum",), False)


def test_a_result_is_not_written_into() -> None:
    def forward(m: Any, x: Tensor) -> Any:
        y = F.relu(m.a(x))
        return m.b(y * 2) + y, y

    model = lower(torch.fx.symbolic_trace(Given(forward).eval()), image(2, 4, 6, 6))
    assert [(one.takes, one.in_place) for one in report(model).kernels] == [(("relu",), False), (("sum",), False)]


def test_a_value_is_written_into_only_behind_the_last_layer_that_reads_it() -> None:
    def forward(m: Any, x: Tensor) -> Tensor:
        y = F.relu(m.a(x))
        late = m.c(y)
        z = m.b(y * 2) + y
        return F.relu(late) * z  # the layer c stands where its activation is: behind the sum

    assert kernels(forward, c=nn.Conv2d(4, 4, 1))[2] == ("b", ("sum",), False)


def test_a_layer_is_not_moved_behind_what_changes_its_input() -> None:
    def forward(m: Any, x: Tensor) -> Tensor:
        y = m.b(x)
        a = m.a(y)
        y = y.sub_(1)
        return F.relu(a) * y

    assert kernels(forward)[1] == ("a", (), False)


def test_a_question_for_the_shape_between() -> None:
    def forward(m: Any, x: Tensor) -> Tensor:
        y = m.a(x)
        torch._assert(y.dim() == 4, "four axes")
        z = F.relu(y)
        return z.reshape(y.size(0), -1)

    assert kernels(forward) == [("a", ("relu",), False)]

    def early(m: Any, x: Tensor) -> Tensor:
        y = m.a(x)
        size = y.size(0) + 1
        return F.relu(y) * size

    assert kernels(early) == [("a", (), False)]


def test_differences_and_factors_are_no_sums() -> None:
    assert kernels(lambda m, x: m.a(x) - m.b(x)) == [("a", (), False), ("b", (), False)]
    assert kernels(lambda m, x: torch.add(m.a(x), m.b(x), alpha=2)) == [("a", (), False), ("b", (), False)]

    def twice(m: Any, x: Tensor) -> Tensor:
        y = m.a(x)
        return y + y

    assert kernels(twice) == [("a", (), False)]


def test_a_norm_that_stayed_takes_its_activation() -> None:
    function: Any = lambda m, x: m.a(torch.cat([F.relu(m.n(x)), m.b(x)], 1)[:, :4])  # noqa: E731 - as all others here
    found = kernels(lambda m, x: F.relu(m.n(F.gelu(x))) * m.b(x), n=nn.BatchNorm2d(4))
    assert ("n", ("relu",), False) in found
    assert kernels(function, n=nn.BatchNorm2d(4))


def test_pre_activations_in_place() -> None:
    def forward(m: Any, x: Tensor) -> Tensor:
        y = m.a(x)
        past = m.b(y)
        y = F.relu(y, inplace=True)
        return m.c(y) + past

    assert kernels(forward, c=nn.Conv2d(4, 4, 1))[0][1] == ()


@pytest.mark.parametrize("groups", [1, 2, 16])
def test_a_residual_network(groups: int) -> None:
    x = image()
    model = planned(Net(groups), x.double())
    assert gap(model(x.double()), made(Net(groups), torch.float64)(x.double())) < 1e-12
    takes = {one.path: (one.takes, one.in_place) for one in report(model).kernels}
    assert takes["blocks.0.conv2"] == (("sum", "relu"), True)
    assert takes["blocks.1.conv2"] == (("sum", "relu"), True)
    assert takes["blocks.1.past.0"] == ((), False)
    assert takes["fc"] == ((), False)
    assert report(model).left == ()


def test_a_sum_behind_stochastic_depth() -> None:
    ops = pytest.importorskip("torchvision.ops")

    def forward(m: Any, x: Tensor) -> Tensor:
        y = F.relu(m.a(x))
        z = ops.stochastic_depth(m.b(y * 2), 0.5, "row", m.training)
        z += y
        return z

    assert kernels(forward) == [("a", ("relu",), False), ("b", ("sum",), True)]
    given = Given(lambda m, x: ops.stochastic_depth(m.b(m.a(x)), 0.5, "batch", training=True) + x)
    model = lower(torch.fx.symbolic_trace(given.eval()))
    assert [one.takes for one in report(model).kernels] == [(), ()]


def test_written_through_a_view_that_may_be_a_copy() -> None:
    def forward(m: Any, x: Tensor) -> Tensor:
        y = m.a(x)
        y.view(2, -1).mul_(2)
        return y

    kernels(forward)
