"""Fixtures of all tests: every test starts from the same random numbers, and may be run in every form of graph."""

from __future__ import annotations

import gc
import string
from typing import TYPE_CHECKING, Any

import pytest
import torch

from fxfuse.graph import registry as operator_table
from fxfuse.report.reasons import Reason, Refusal
from tests.support.graph_forms import EXPORTED_FORMS, FORMS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.graph_forms import Form
    from tests.support.helpers import Structure


torch.set_num_threads(1)  # several processes run at once


def pytest_configure(config: pytest.Config) -> None:
    """Let the export of torch 2.13 pass, which warns of a deprecation in its own code."""
    config.addinivalue_line("filterwarnings", "ignore:`isinstance.treespec, LeafSpec:FutureWarning")


def pytest_collection_finish() -> None:
    """Let garbage collection pass by torch and the tests themselves: to look at all of them takes long, each time."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _same_random_numbers() -> None:
    torch.manual_seed(0)


@pytest.fixture
def restored_operators() -> Iterator[None]:
    """Take back what an example adds to the table of operators."""
    rows, known = dict(operator_table.OPERATORS), dict(operator_table._by_type)
    yield
    operator_table.OPERATORS.clear()
    operator_table.OPERATORS.update(rows)
    operator_table._by_type.clear()
    operator_table._by_type.update(known)


@pytest.fixture(autouse=True)
def _every_fact_is_told(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """In no test a refusal lacks a fact that its sentence asks for; the sentence itself would hide that."""
    lacking: list[str] = []
    remember = Refusal.__init__

    def checked(refusal: Refusal, reason: Reason, **facts: object) -> None:
        asked = {field for _, field, _, _ in string.Formatter().parse(reason.value) if field}
        lacking.extend(f"{reason.name}: {field}" for field in asked if facts.get(field) is None)
        remember(refusal, reason, **facts)

    monkeypatch.setattr(Refusal, "__init__", checked)
    yield
    assert not lacking


@pytest.fixture(params=["graph", "module"])
def structure(request: pytest.FixtureRequest) -> Structure:
    """Both kinds of object that can come back."""
    chosen: Any = request.param
    return chosen


@pytest.fixture(params=FORMS)
def form(request: pytest.FixtureRequest) -> Form:
    """Every form of graph that the pass can read."""
    return FORMS[request.param]


@pytest.fixture(params=EXPORTED_FORMS)
def exported_form(request: pytest.FixtureRequest) -> Form:
    """The forms that torch.export gives."""
    return FORMS[request.param]


@pytest.fixture(params=[False, True], ids=["training IR", "core ATen"])
def decomposed(request: pytest.FixtureRequest) -> bool:
    """Whether an exported program is decomposed before it is fused."""
    chosen: bool = request.param
    return chosen
