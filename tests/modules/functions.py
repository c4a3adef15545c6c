"""Functions of which the code is read; nothing runs them."""

from __future__ import annotations

import contextlib
import operator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


def chain(self: Any, x: Any) -> Any:
    return self.bn(self.conv(x))


def chain_with_relu(self: Any, x: Any) -> Any:
    return self.bn(self.conv(x)).relu()


def chain_in_statements(self: Any, x: Any) -> Any:
    x = self.conv(x)
    x = self.bn(x)
    return x  # noqa: RET504 - this is the point


def chain_with_a_tap(self: Any, x: Any) -> Any:
    y = self.conv(x)
    return self.bn(y) + y


def chain_behind_an_argument(self: Any, x: Any) -> Any:
    return self.bn(self.conv(x), 1)


def chain_twice(self: Any, x: Any) -> Any:
    return self.bn(self.conv(self.conv(x)))


def chain_with_an_operation(self: Any, x: Any) -> Any:
    return self.bn(self.conv(x) + 1)


def chain_in_a_branch(self: Any, x: Any) -> Any:
    return self.bn(self.conv(x) if self.flag else x)


def reads_and_calls(self: Any, x: Any) -> Any:
    y = x.view(self.size)
    return self.bn(self.conv.weight * y) + self.block.last(x)


def stores(self: Any, x: Any) -> Any:
    self.seen = x
    x.mark = 1
    del self.old
    return x


def in_functions_inside(self: Any, x: Any) -> Any:
    def inner(y: Any) -> Any:
        return self.conv(y)

    return [inner(z.first) for z in x] + [*map(lambda z: self.bn(z), x)]  # noqa: C417, PLW0108 - a function inside


def under_another_name(self: Any, x: Any) -> Any:
    model = self
    return model.conv(x)


def names_in_texts(self: Any, x: Any) -> Any:
    return getattr(self, "layer.conv")(x)


def asks_for_its_shape(self: Any, x: Any) -> Any:
    return x * self.conv.weight.shape[0]


def uses_it(self: Any, x: Any) -> Any:
    return x * self.conv.weight


def goes_through_children(self: Any, x: Any) -> Any:
    for layer in self.children():
        x = layer(x)
    return x


def computes_a_name(self: Any, x: Any) -> Any:
    return getattr(self, f"conv{len(x)}")(x)


def computes_a_whole_name(self: Any, x: Any) -> Any:
    return getattr(self, f"{x}conv")(x)


def gives_a_default(self: Any, x: Any) -> Any:
    return x * getattr(self, "scale", 1)


def gets_by_a_function(self: Any, x: Any) -> Any:
    return operator.attrgetter("conv")(self)(x)


def reads_its_state(self: Any, x: Any) -> Any:
    return x, self.state_dict()


def dictionary(self: Any, x: Any) -> Any:
    return self.__dict__["conv"](x)


def calls_an_element(self: Any, x: Any) -> Any:
    return self.layers[0](x)


def calls_what_it_is_given(x: Any, layer: Callable[[Any], Any]) -> Any:
    return layer(x)


def calls_what_another_gives(self: Any, x: Any) -> Any:
    return self.find()(x)


def reads_attributes(self: Any, x: Any) -> Any:
    return x.view(self.size, self.size) + self.scale(x)


def hands_itself_on(self: Any, x: Any) -> Any:
    return list(map(self, x))


def keeps_itself(self: Any, x: Any) -> Any:
    y = self
    return y.conv(x)


def is_in_a_function_inside(self: Any, x: Any) -> Any:
    return lambda: self.conv(x)


def catches(x: Any) -> Any:
    try:
        return x + 1
    except TypeError:
        return x


def finally_returns(x: Any) -> Any:
    try:
        x += 1
    finally:
        x -= 1
    return x


def opens(x: Any) -> Any:
    with contextlib.suppress(TypeError):
        return x + 1
    return x


def raises(x: Any) -> Any:
    if x is None:
        raise ValueError
    return x


def says_nothing(x: Any) -> None:
    x.append(1)


def returns_none(x: Any) -> None:
    if x:
        return None  # noqa: RET501 - this is the point
    x.append(1)
    return None  # noqa: RET501 - this is the point


def returns_at_times(x: Any) -> Any:
    if x:
        return x
    return None


def yields(x: Any) -> Iterator[Any]:
    yield x
