"""Arguments that cannot be used: one clear sentence, and nothing is changed."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, fx, nn
from torch.ao.nn import quantized

from fxfuse import FuseError, Report, explain, fx_fuse
from fxfuse.rules import RULES
from tests.support.helpers import Model, assert_same, folds, trained, unchanged, values
from tests.support.samples import error_of


def conv_norm(channels: int = 3) -> nn.Sequential:
    return trained(nn.Sequential(nn.Conv2d(channels, 4, 3), nn.BatchNorm2d(4), nn.ReLU()))


def assert_sentence(sentence: str, *words: str) -> None:
    """It names what is wrong, says that nothing was changed, and is one readable line."""
    assert all(word in sentence for word in words), sentence
    assert "othing was changed" in sentence
    assert len(sentence.splitlines()) == 1
    assert len(sentence) < 500


@pytest.mark.parametrize(
    "other",
    [None, 3, "resnet50", nn.Conv2d, torch.randn(2), [nn.ReLU()], conv_norm().state_dict(), torch.relu],
    ids=lambda other: type(other).__name__,
)
@pytest.mark.parametrize("function", [fx_fuse, explain])
def test_not_a_module(function: Any, other: Any) -> None:
    assert_sentence(error_of(lambda: function(other)), "torch.nn.Module", type(other).__name__)


def test_a_model_in_training_mode() -> None:
    model = conv_norm().train()
    with unchanged(model):
        assert_sentence(error_of(lambda: fx_fuse(model)), "training mode", ".eval()", "1 ")


def test_a_model_in_training_mode_without_norms_is_fused() -> None:
    assert not Report.of(fx_fuse(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())))


def test_lazy_modules() -> None:
    model = nn.Sequential(nn.LazyConv2d(4, 3), nn.LazyBatchNorm2d()).eval()
    assert_sentence(error_of(lambda: fx_fuse(model)), "0.weight", "not initialised", "run the model once")
    assert type(model[0]) is nn.LazyConv2d


def test_meta_tensors() -> None:
    with torch.device("meta"):
        model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).eval()
    with unchanged(model):
        assert_sentence(error_of(lambda: fx_fuse(model)), "meta", "0.weight", "load")


def quantized_layers() -> nn.Sequential:
    return nn.Sequential(quantized.Conv2d(3, 4, 3), quantized.BatchNorm2d(4)).eval()


@pytest.mark.filterwarnings("ignore:.*(quantization|TypedStorage|deprecated)")
@pytest.mark.parametrize("structure", [None, "graph", "module"])
def test_quantized_modules(structure: Any) -> None:
    model = quantized_layers()
    sentence = error_of(lambda: fx_fuse(model, structure=structure))
    assert_sentence(sentence, "0 is quantized", "no norm is left", "before you quantize")
    assert_sentence(error_of(lambda: fx_fuse(model[0])), "Conv2d is quantized")


class Mixed(Model):
    """The first layers are quantized already, the last ones are not."""

    def forward(self, x: Tensor) -> Tensor:
        y = torch.quantize_per_tensor(x, 0.1, 0, torch.quint8)
        y = self.low(y).dequantize()
        return self.relu(self.high(y))


@pytest.mark.filterwarnings("ignore:.*(quantization|TypedStorage|deprecated)")
@pytest.mark.parametrize("structure", [None, "graph", "module"])
def test_the_float_rest_of_a_quantized_model_is_fused(structure: Any) -> None:
    model = Mixed(low=quantized.ReLU6(), high=conv_norm().float(), relu=nn.ReLU()).eval()
    fused = fx_fuse(model, structure=structure)
    assert_same(model, fused, values(2, 3, 6, 6, dtype=torch.float32), rtol=1e-5)
    assert folds(fused) == ["high.1"]


@pytest.mark.filterwarnings("ignore:.*(quantization|TypedStorage|deprecated)")
def test_a_quantized_norm_stays_beside_a_float_one() -> None:
    model = nn.Sequential(quantized_layers(), nn.Identity(), conv_norm()).eval()
    report = Report.of(fx_fuse(model))
    assert [d.path for d in report.folded] == ["2.1"]
    assert {d.path for d in report.skipped} <= {"0.1"}


@pytest.mark.filterwarnings("ignore:.*(quantization|TypedStorage|deprecated)")
def test_a_quantized_model_in_training_mode_is_told_about_its_float_norms() -> None:
    model = nn.Sequential(quantized_layers(), conv_norm().train())
    assert_sentence(error_of(lambda: fx_fuse(model)), "1.1", "training mode")


@pytest.mark.filterwarnings("ignore:.*(torch.jit|deprecated)")
@pytest.mark.parametrize("script", [torch.jit.script, lambda m: torch.jit.trace(m, values(2, 3, 6, 6))])
def test_scripted_modules(script: Any) -> None:
    model = script(conv_norm())
    assert_sentence(error_of(lambda: fx_fuse(model)), "scripted", "before")


def untyped(function: Any) -> Any:
    """The function, for a call that a type checker would refuse."""
    return function


def test_a_compiled_model() -> None:
    model = conv_norm()
    compiled = torch.compile(model, backend="eager")
    try:
        fused = fx_fuse(compiled)  # type: ignore[call-overload] # it is a module
    except FuseError as error:
        assert_sentence(str(error), "compile")
    else:
        assert Report.of(fused).folded


INPUTS: list[Any] = [
    pytest.param(values(2, 5, 6, 6), id="channels"),
    pytest.param(values(2, 3, 6, 6, dtype=torch.float32), id="dtype"),
    pytest.param((values(2, 3, 6, 6), values(2)), id="too many"),
    pytest.param((), id="none"),
    pytest.param({"y": values(2, 3, 6, 6)}, id="keyword"),
    pytest.param("image.png", id="a name"),
    pytest.param([values(2, 3, 6, 6)], id="a list"),
    pytest.param(3, id="a number"),
]


@pytest.mark.parametrize("inputs", INPUTS)
@pytest.mark.parametrize("structure", [None, "graph", "module"])
def test_wrong_example_inputs(inputs: Any, structure: Any) -> None:
    model = conv_norm()
    with unchanged(model):
        sentence = error_of(lambda: fx_fuse(model, inputs, structure=structure))
    assert_sentence(sentence, "Sequential", "example inputs", "tuple")


class Raises(Model):
    def forward(self, x: Tensor) -> Tensor:
        y = self.bn(self.conv(x))
        if y.sum() > -1e9:
            raise ValueError("broken\nin two lines")
        return y


def test_a_model_that_raises_by_itself() -> None:
    model = trained(Raises(conv=nn.Conv2d(3, 4, 3), bn=nn.BatchNorm2d(4)))
    with unchanged(model):
        assert_sentence(error_of(lambda: fx_fuse(model, values(2, 3, 6, 6))), "Raises", "broken")


def test_a_module_without_a_forward() -> None:
    model = nn.ModuleList([conv_norm()])
    with unchanged(model):
        fused = fx_fuse(model)
    assert_same(model[0], fused.get_submodule("0"), values(2, 3, 6, 6))


@pytest.mark.parametrize("structure", ["modules", "Graph", "", 1])
def test_an_unknown_structure(structure: Any) -> None:
    sentence = error_of(lambda: fx_fuse(conv_norm(), structure=structure))
    assert_sentence(sentence, repr(structure), "'graph'", "'module'")


class Untraceable(Model):
    def forward(self, x: Tensor) -> Tensor:
        return self.block(x) if x.sum() > 0 else self.block(-x)


def test_a_graph_of_what_cannot_be_traced() -> None:
    model = trained(Untraceable(block=conv_norm()))
    with unchanged(model):
        sentence = error_of(lambda: fx_fuse(model, structure="graph"))
    assert_sentence(sentence, "Untraceable", "structure='module'")


def test_inplace_of_what_is_not_a_graph() -> None:
    model, fuse = conv_norm(), untyped(fx_fuse)
    with unchanged(model):
        assert_sentence(error_of(lambda: fuse(model, inplace=True)), "GraphModule", "Sequential")


def test_inplace_with_a_structure() -> None:
    model = fx.symbolic_trace(conv_norm())
    with unchanged(model):
        assert_sentence(error_of(lambda: fx_fuse(model, inplace=True, structure="module")), "inplace=True")


def test_inplace_with_wrong_inputs_changes_nothing() -> None:
    model = fx.symbolic_trace(conv_norm())
    with unchanged(model):
        assert_sentence(error_of(lambda: fx_fuse(model, values(2, 5, 6, 6), inplace=True)), "example inputs")


@pytest.mark.parametrize("rules", [[3], ["fold_upstreams"], "fold_upstreams", ["fold_upstream", None], 3, None])
def test_rules_that_are_none(rules: Any) -> None:
    model = conv_norm()
    with unchanged(model):
        sentence = error_of(lambda: fx_fuse(model, rules=rules))
    wrong = rules[-1] if isinstance(rules, list) else rules
    assert_sentence(sentence, f"rules={rules!r}", f"{wrong!r} is no rule", "DEFAULT_RULES", *RULES)


def test_an_unknown_option_is_an_error_of_python() -> None:
    with pytest.raises(TypeError, match="structur"):
        explain(conv_norm(), structur="graph")  # type: ignore[call-arg] # the point


def test_an_exported_program_has_one_structure() -> None:
    program, fuse = torch.export.export(conv_norm(), (values(2, 3, 6, 6),)), untyped(fx_fuse)
    assert_sentence(error_of(lambda: fuse(program, structure="module")), "ExportedProgram", "structure")
    assert_sentence(error_of(lambda: fuse(program, inplace=True)), "ExportedProgram", "inplace")


@pytest.mark.parametrize(
    ("inputs", "advice"),
    [
        ((1, 3, 6, 6), "A shape is no input: pass torch.randn(1, 3, 6, 6)"),
        ([values(1, 3, 6, 6)], "a tuple of positional arguments, or a dict of keywords"),
    ],
)
def test_inputs_that_are_none_are_told_with_what_to_pass(inputs: Any, advice: str) -> None:
    assert_sentence(error_of(lambda: fx_fuse(conv_norm(), inputs)), "raises on the example inputs", advice)


def test_arrays_are_no_tensors() -> None:
    pytest.importorskip("numpy")
    array = values(1, 3, 6, 6).numpy()
    assert_sentence(error_of(lambda: fx_fuse(conv_norm(), array)), "Pass tensors: torch.from_numpy(array)")


@pytest.mark.parametrize("option", ["allow_copies", "allow_growth", "guards", "inplace"])
def test_a_text_is_neither_true_nor_false(option: str) -> None:
    fuse, model = untyped(fx_fuse), fx.symbolic_trace(conv_norm())
    with unchanged(model):
        assert_sentence(error_of(lambda: fuse(model, **{option: "no"})), f"{option}='no' is neither True nor False")
