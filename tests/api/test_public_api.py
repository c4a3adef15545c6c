"""The public names, their signatures, and the examples in the documentation."""

from __future__ import annotations

import doctest
import importlib
import inspect
import pkgutil
import subprocess
import sys

import pytest

import fxfuse
from fxfuse import extend
from fxfuse.graph.registry import Columns
from fxfuse.rules import DEFAULT_RULES

PUBLIC = (
    "FuseError FusePass Inputs Plan Reason Report explain fuse_conv_bn fuse_graph fx_fuse lower optimize refold "
    "register verify"
).split()
EXTEND = [name for name in extend.__all__ if inspect.isclass(getattr(extend, name)) or name in ("register", "require")]
MODULES = [m.name for m in pkgutil.walk_packages(fxfuse.__path__, "fxfuse.") if not m.name.endswith("__main__")]


def test_the_public_names() -> None:
    assert sorted(fxfuse.__all__) == sorted([*PUBLIC, "__version__"])
    assert all(hasattr(fxfuse, name) for name in fxfuse.__all__)
    assert fxfuse.__version__.count(".") == 2


@pytest.mark.parametrize("name", PUBLIC)
def test_every_public_name_is_documented_and_says_where_it_is(name: str) -> None:
    documented = getattr(fxfuse, name)
    assert documented.__doc__
    assert documented.__module__.startswith("fxfuse.")


def test_the_signature_of_fx_fuse() -> None:
    parameters = inspect.signature(fxfuse.fx_fuse).parameters
    assert list(parameters) == [
        *("model", "example_inputs", "rules", "structure", "allow_copies", "allow_growth", "guards", "inplace"),
        "hooks",
    ]
    by_keyword = [name for name, p in parameters.items() if p.kind is p.KEYWORD_ONLY]
    assert by_keyword == ["rules", "structure", "allow_copies", "allow_growth", "guards", "inplace", "hooks"]
    defaults = {name: p.default for name, p in parameters.items() if p.default is not p.empty}
    assert defaults == {
        "example_inputs": None,
        "rules": DEFAULT_RULES,
        "structure": None,
        "allow_copies": True,
        "allow_growth": False,
        "guards": True,
        "inplace": False,
        "hooks": "keep",
    }


@pytest.mark.parametrize(
    ("function", "names"),
    [
        (fxfuse.explain, ["model", "example_inputs", "options"]),
        (fxfuse.fuse_conv_bn, ["conv", "bn"]),
        (fxfuse.fuse_graph, ["graph_module", "constants", "rules", "allow_copies", "allow_growth", "guards", "hooks"]),
        (fxfuse.lower, ["fused", "example_inputs", "exact_nan"]),
        (fxfuse.optimize, ["model", "example_inputs"]),
        (fxfuse.FusePass, ["constants", "options"]),
        (fxfuse.verify, ["model", "fused", "example_inputs", "tolerance", "raises"]),
        (
            fxfuse.register,
            ["name", "view", "arguments", "modules", "functions", "methods", "tuples", "otherwise", "replace", "facts"],
        ),
    ],
)
def test_the_other_signatures(function: object, names: list[str]) -> None:
    assert list(inspect.signature(function).parameters) == names  # type: ignore[arg-type] # functions


def test_every_argument_is_documented() -> None:
    for function in (
        fxfuse.fx_fuse,
        fxfuse.explain,
        fxfuse.fuse_graph,
        fxfuse.fuse_conv_bn,
        fxfuse.lower,
        fxfuse.optimize,
        fxfuse.verify,
        fxfuse.register,
    ):
        names = dict.fromkeys(inspect.signature(function).parameters)
        if function is fxfuse.register:
            del names["facts"]
            names |= dict.fromkeys(Columns.__annotations__)
        for name in names:
            assert f"    {name}: " in (function.__doc__ or ""), f"{function.__name__}: {name}"


@pytest.mark.usefixtures("restored_operators")
@pytest.mark.parametrize("name", MODULES)
def test_the_examples_in_the_documentation(name: str) -> None:
    if name == "fxfuse.lowering.epilogue":
        pytest.importorskip("triton")
    result = doctest.testmod(importlib.import_module(name), optionflags=doctest.ELLIPSIS)
    assert result.failed == 0


@pytest.mark.parametrize("name", PUBLIC)
def test_every_public_function_has_an_example(name: str) -> None:
    assert ">>> " in (getattr(fxfuse, name).__doc__ or "")


@pytest.mark.parametrize("name", EXTEND)
def test_every_name_for_extensions_has_an_example(name: str) -> None:
    assert ">>> " in (vars(extend)[name].__doc__ or "")


def test_the_names_for_extensions() -> None:
    names = "Affine LinearMap Linear Convolution LinearLayer AffineSource Carrier Passage Homogeneous Identity Copy"
    names += " register Graph Plan Fold Merge Write Guard ValueSlice Cost Reason Refusal require DEFAULT_RULES"
    assert sorted(extend.__all__) == sorted(names.split())


def test_the_page_is_a_name_of_the_package_that_costs_no_import() -> None:
    code = "import sys, fxfuse; print(any(name.startswith('fxfuse.cli') for name in sys.modules)); "
    code += "from fxfuse import html_report; print(callable(html_report.write), callable(fxfuse.html_report.page))"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed.split() == ["False", "True", "True"]
    with pytest.raises(AttributeError, match="no attribute 'html_reports'"):
        _ = fxfuse.html_reports  # type: ignore[attr-defined] # that is the test
