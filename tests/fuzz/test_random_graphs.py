"""Properties of every result, on random models of all rows of the table; ``python -m tests.fuzz`` runs many more."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from tests.forms.versions import BEFORE_2_14
from tests.fuzz.build import built
from tests.fuzz.forms import DIFFERENCES, check_forms, is_whole
from tests.fuzz.nets import Net
from tests.fuzz.properties import check
from tests.fuzz.recipes import RECIPES, Recipe, Step
from tests.fuzz.refolded import check_refold
from tests.fuzz.rows import OF_NUMBERS, ROWS, name
from tests.operators.samples import WITH_ROLE

pytestmark = pytest.mark.filterwarnings("ignore")  # torch warns of what is drawn: even kernels, deprecated names


def examples(count: int, *, shrink: bool = True) -> settings:
    """The same examples every time, and no time limit for one, since machines differ."""
    return settings(
        max_examples=count,
        deadline=None,
        derandomize=True,
        phases=[Phase.generate, *([Phase.shrink] if shrink else [])],
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
    )


def test_every_row_of_the_table_is_drawn_and_built() -> None:
    assert set(ROWS) == {name(target) for target in WITH_ROLE if target not in OF_NUMBERS}
    for row, samples in ROWS.items():
        for number in range(len(samples)):
            made = built(Recipe((Step(row, number),))).model
            assert isinstance(made, Net)
            if BEFORE_2_14 and "native_group_norm" in row and not made.calls:
                continue  # its sample lies in another order than torch 2.13 takes there
            called = [made.get_submodule(call.child) for call in made.calls]
            assert any(type(module) is type(samples[number].model) for module in called), f"{row} was left out"


@examples(100)
@given(recipe=RECIPES)
def test_the_properties_of_every_result(recipe: Recipe) -> None:
    check(recipe)


@examples(6, shrink=False)  # an export takes half a second
@given(recipe=RECIPES.filter(is_whole))
def test_every_form_gives_the_same_and_decides_the_same(recipe: Recipe) -> None:
    check_forms(recipe)


@examples(25)
@given(recipe=RECIPES)
def test_other_weights_give_what_fusing_again_gives(recipe: Recipe) -> None:
    check_refold(recipe)


def test_every_difference_of_the_forms_is_a_sentence() -> None:
    assert all(d.why.endswith(".") for d in DIFFERENCES)
