"""What functions do with their first parameter."""

from __future__ import annotations

from typing import Any


def as_a_default(self: Any, run: Any) -> Any:
    def inner(model: Any = self) -> Any:
        return run(model)

    return inner


def in_the_body_of_a_class(self: Any, run: Any) -> Any:
    class Holder:
        model = self

    return run(Holder)


def in_a_comprehension(self: Any, run: Any) -> Any:
    return run([self for _ in range(2)])


def behind_a_statement(self: Any, run: Any) -> Any:
    # fmt: off
    one = run; me = self  # noqa: E702 - on one line a single step does both
    # fmt: on
    return one(me)


HANDS_ON = [as_a_default, in_the_body_of_a_class, in_a_comprehension, behind_a_statement]


def uses_it_inside(self: Any, x: Any) -> Any:
    def inner(y: Any) -> Any:
        return self.conv(y)

    return inner(x) + sum(self.bn(y) for y in x)


def asks_parameters(self: Any, x: Any) -> Any:
    one = all(p.dtype == x.dtype for p in self.parameters())
    return one and next(self.parameters()).dtype == x.dtype


def reads_parameters(self: Any, dtype: Any) -> Any:
    return next(self.parameters()), dtype


def goes_through_parameters(self: Any, x: Any) -> Any:
    same: Any = lambda value: value  # noqa: E731
    return same(x), [p for p in self.parameters() if p.requires_grad]


READS_PARAMETERS = [reads_parameters, goes_through_parameters]


def of_a_child_of_its_own_name(module: Any, x: Any) -> Any:
    return module.inner.module.conv(x)


def with_variables_of_known_names(self: Any, run: Any, stride: Any, shape: Any) -> Any:
    return run(self.conv, stride), run(self.bn.weight, shape)
