"""No norm in the zoo stays that folded before; ``python -m tests.zoo.counts`` writes anew what is expected."""

from __future__ import annotations

import pytest

from tests.zoo.counts import builders, counted, stored


def test_every_model_has_counts() -> None:
    assert list(stored()) == list(builders())


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", builders())
def test_the_counts_are_those_that_were_stored(name: str) -> None:
    package = {"smp": "segmentation_models_pytorch"}.get(name.partition("/")[0], name.partition("/")[0])
    pytest.importorskip(package)
    assert counted(name) == stored()[name]
