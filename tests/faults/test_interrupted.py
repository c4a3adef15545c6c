"""Whatever raises in a pass, and wherever: the argument is what it was, or the pass is done."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import pytest
from torch import fx, nn
from torch.fx import _symbolic_trace

from fxfuse import FuseError, fx_fuse
from fxfuse.capture import process
from tests.faults.forms import FORMS, as_before, described, outputs
from tests.faults.points import interrupted, points_of, some_of
from tests.support.helpers import assert_equal

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tests.faults.forms import Form
    from tests.faults.points import Point

pytestmark = pytest.mark.filterwarnings("ignore:.*")  # what is interrupted may warn of that


class Injected(Exception):  # noqa: N818 - not an error of anybody's
    """What is raised in the middle of a pass."""


class Done(Exception):  # noqa: N818 - likewise
    """An argument was fused in place."""


ERRORS = (Injected, KeyboardInterrupt)


@pytest.fixture(params=FORMS)
def form(request: pytest.FixtureRequest) -> Form:
    """Every way to start a pass."""
    return FORMS[request.param]


def points(form: Form) -> dict[Point, int]:
    """Where a pass comes, and how often, once all is prepared that is prepared once in a session."""
    form.fuse(form.make())
    argument = form.make()
    found = points_of(lambda: form.fuse(argument))
    assert len(found) > 500
    return found


def result_of(form: Form, argument: Any, point: Point, error: BaseException) -> Any:
    """What a pass gives that is interrupted at a point; None where that stops it, as an interruption should."""
    result, reached, told = None, True, None
    try:
        result, reached = interrupted(lambda: form.fuse(argument), point, error)
    except (FuseError, KeyboardInterrupt) as raised:
        told = raised
    assert reached, f"the pass does not come to {point} again"
    if isinstance(error, Injected):
        assert told is None or "othing was changed" in str(told), str(told)
    else:
        assert told is error, f"an interruption by the user was swallowed at {point}"
    return result


def check(form: Form, chosen: Iterable[Point], *, again: bool) -> None:
    """Interrupt a pass at some points, with an error and as the user does, in turns.

    Args:
        form: how it is started.
        chosen: the points.
        again: whether the argument is fused after each interruption, and not only after all of them.
    """
    argument = form.make()
    before, right = outputs(argument, argument), described(form.fuse(form.make()))
    for number, point in enumerate(chosen):
        if point.code is _symbolic_trace._Patcher.__init__.__code__:
            continue  # a ``finally`` of torch's asserts there what was not assigned, in place of the interruption
        result = None
        with contextlib.suppress(Done), as_before(argument):
            result = result_of(form, argument, point, ERRORS[number % 2]("in the middle"))
            if result is not None and form.inplace:
                raise Done
        if result is not None:  # what cannot be traced, computed or proven is left, and the rest is right
            assert_equal(before, outputs(argument, result), rtol=1e-10)
        if again and result is None:
            assert described(form.fuse(argument)) == right, f"the pass gives something else after {point}"
        if form.inplace and (again or result is not None):
            argument = form.make()
    assert_equal(before, outputs(argument, argument))
    assert described(form.fuse(argument)) == right


def test_whatever_raises_changes_nothing(form: Form) -> None:
    check(form, some_of(list(points(form)), 8, [*FORMS.values()].index(form) * 17), again=False)


def test_every_call_of_the_editor_may_raise() -> None:
    form = FORMS["fuse_graph"]
    calls = {p: times for p, times in points(form).items() if p.file == "editor.py" and not p.called}
    assert len(calls) > 30
    check(form, [point._replace(number=number) for point, n in calls.items() for number in {0, n - 1}], again=False)


@pytest.mark.slow
def test_whatever_raises_changes_nothing_and_the_next_pass_is_right(form: Form) -> None:
    check(form, some_of(list(points(form)), 250), again=True)


def test_torch_does_not_go_on_saying_that_a_trace_is_under_way(monkeypatch: pytest.MonkeyPatch) -> None:
    def trace(*_: object) -> None:
        process._say_under_way(True)
        raise KeyboardInterrupt

    monkeypatch.setattr(fx.Tracer, "trace", trace)
    with pytest.raises(KeyboardInterrupt):
        fx_fuse(nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)).eval())
    assert not process._is_under_way()
