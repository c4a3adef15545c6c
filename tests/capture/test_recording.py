"""What runs is recorded, whatever it is made of, and leaves nothing behind."""

from __future__ import annotations

import dataclasses
import threading
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from fxfuse import Inputs, Reason, Report, fx_fuse
from fxfuse.capture.recording import Recording
from tests.support.helpers import Model, assert_equal, trained, unchanged, values

if TYPE_CHECKING:
    from collections.abc import Iterator

X = values(2, 3, 6, 6)


def layers() -> dict[str, nn.Module]:
    return {"conv": nn.Conv2d(3, 4, 3, padding=1), "bn": nn.BatchNorm2d(4)}


def branch(x: Tensor) -> Tensor:
    """Whatever calls this cannot be traced."""
    return -x if x.sum() > 1e9 else x


def assert_folds(model: nn.Module, *paths: str, inputs: Any = X) -> Any:
    """The norms at these paths fold with inputs, nothing is left behind, and what comes out is the same."""
    trained(model)
    calls = Inputs.calls_of(inputs)
    before = [call.call(model) for call in calls]
    forwards = [module.__dict__.get("forward") for module in model.modules()]
    with unchanged(model):
        result: Any = fx_fuse(model, inputs)
    assert [module.__dict__.get("forward") for module in model.modules()] == forwards
    assert sorted({d.path for d in Report.of(result).folded}) == sorted(paths)
    for call, expected in zip(calls, before, strict=True):
        assert_equal(expected, call.call(result), rtol=1e-11)
    return result


@dataclasses.dataclass
class Boxed:
    value: Any
    more: dict[str, Any]


class Objects(Model):
    def forward(self, box: Boxed) -> Any:
        x = branch(box.value)
        y = Boxed(self.conv(x), {"a": [x]})
        z = self.bn(y.value)
        return {"z": z, "all": (item for item in (z,))}["z"]


class Generated(Model):
    def steps(self, x: Tensor) -> Iterator[Tensor]:
        y = self.conv(x)
        yield self.bn(y)

    def forward(self, x: Tensor) -> list[Tensor]:
        return [y.relu() for y in self.steps(branch(x))]


HAS_NUMPY = find_spec("numpy") is not None


class Numbers(Model):
    """Values leave torch and come back."""

    def forward(self, x: Tensor) -> Tensor:
        scale = torch.tensor(x.abs().max().item()).to(x.dtype)
        table = torch.tensor(x.sum((0, 1)).tolist(), dtype=x.dtype)
        largest = table.numpy().max() if HAS_NUMPY else max(map(max, table.tolist()))
        return self.bn(self.conv(branch(x))) * scale + largest


class Checkpointed(Model):
    reentrant = False

    def forward(self, x: Tensor) -> Tensor:
        y = checkpoint(lambda v: self.bn(self.conv(v)), branch(x), use_reentrant=self.reentrant)
        assert isinstance(y, Tensor)
        return y


class Doubled(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:  # noqa: ARG004
        return x * 2

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:  # noqa: ARG004
        return grads[0] * 2


class OwnFunction(Model):
    def forward(self, x: Tensor) -> Tensor:
        y: Any = Doubled.apply(x)
        return self.bn(self.conv(branch(y)))


class InPlace(Model):
    def forward(self, x: Tensor) -> Tensor:
        y = self.bn(self.conv(branch(x)))
        y[:, 0] += 1
        y.mul_(2).relu_()
        return y


@pytest.mark.parametrize("cls", [Generated, Numbers, Checkpointed, OwnFunction, InPlace])
def test_anything_that_runs_folds(cls: type[Model]) -> None:
    assert_folds(cls(**layers()), "bn")


def test_objects_are_looked_into() -> None:
    assert_folds(Objects(**layers()), "bn", inputs=(Boxed(X, {}),))


def test_data_parallel_folds() -> None:
    assert_folds(nn.DataParallel(Generated(**layers())), "module.bn")


def test_what_is_compiled_runs_as_it_was_written() -> None:
    class Outer(Model):
        def forward(self, x: Tensor) -> Tensor:
            return self.inner(branch(x))

    inner = nn.Sequential(*layers().values()).double()
    assert_folds(Outer(inner=torch.compile(inner, backend="eager")), "inner._orig_mod.1")


# -- values that no trace knows are inputs


class RunScale(Model):
    """A traced block gets a scale that is the constant of one run."""

    def forward(self, x: Tensor) -> Tensor:
        return self.block(branch(x), self.gain * float(x[0, 0, 0, 0]))


class Scaled(Model):
    def forward(self, x: Tensor, scale: Tensor) -> Tensor:
        return self.bn(self.conv(x) * scale)


@pytest.mark.parametrize("inputs", [X, values(1, 3, 6, 6)])
def test_what_is_computed_from_numbers_is_no_constant(inputs: Tensor) -> None:
    model = trained(RunScale(block=Scaled(**layers()), gain=nn.Parameter(values(4, 1, 1))))
    result: Any = fx_fuse(model, inputs)
    other = values(3, 3, 5, 5)
    torch.testing.assert_close(result(other), model(other), rtol=1e-11, atol=1e-11)
    assert not Report.of(result).folded


class ReadsWeight(Model):
    def forward(self, x: Tensor) -> Tensor:
        y = self.bn(self.conv(branch(x)))
        return y + self.conv.weight.data.mean()


def test_a_weight_that_other_code_reads_stays() -> None:
    result: Any = fx_fuse(trained(ReadsWeight(**layers())), X)
    (decision,) = Report.of(result).skipped
    assert decision.reason in {Reason.REACHED_INTO, Reason.OPAQUE}


class Escapes(Model):
    def forward(self, x: Tensor) -> Any:
        y = self.conv(branch(x))
        self.__dict__["last"] = Boxed(y, {})
        return self.bn(y), self.__dict__["last"]


def test_what_somebody_still_holds_is_used() -> None:
    result: Any = fx_fuse(trained(Escapes(**layers())), X)
    assert not Report.of(result).folded


class Functional(Model):
    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(branch(x))
        return F.batch_norm(y, self.bn.running_mean, self.bn.running_var)


def test_a_norm_that_untraced_code_writes_out_stays() -> None:
    model = trained(Functional(**layers()))
    result: Any = fx_fuse(model, X)
    assert not Report.of(result).folded
    assert torch.equal(result(X), model(X))


class OtherThread(Model):
    def forward(self, x: Tensor) -> Tensor:
        found: list[Tensor] = []
        x = branch(x)
        thread = threading.Thread(target=lambda: found.append(self.conv(x)))
        thread.start()
        thread.join()
        return self.bn(found[0])


def test_what_other_threads_compute_is_not_known() -> None:
    model = trained(OtherThread(**layers()))
    result: Any = fx_fuse(model, X)
    assert not Report.of(result).folded
    assert torch.equal(result(X), model(X))


def test_other_threads_call_the_model_meanwhile() -> None:
    model, found = trained(Generated(**layers())), list[Tensor]()
    calls = [threading.Thread(target=lambda: found.append(model(X)[0])) for _ in range(4)]
    recording = Recording(model, ())
    for call in calls:
        call.start()
    given = recording.run(Inputs(X))
    for call in calls:
        call.join()
    assert all(torch.equal(one, given[0]) for one in found)
