"""What is done with elements is the same in every version of Python; see ``test_code``, which also needs no torch."""

from __future__ import annotations

from typing import Any

from fxfuse.modules.code import mentions


def calls_elements(self: Any, x: Any, xs: Any, number: Any) -> Any:
    for layer in self.plain:
        x = layer(x) + 1
    for count, layer2 in enumerate(self.numbered):
        x = layer2(x, count)
    for y, layer3 in zip(xs, self.zipped):  # noqa: B905
        x = x + layer3(y[0])
    for index, (y, layer4) in enumerate(zip(xs, reversed(self.nested))):  # noqa: B905
        x = layer4(x, y, index)
    for layer in self.again:
        x = layer(x)
    listed = [layer(x) for layer in self.listed]
    summed = sum(layer(x) for layer in self.summed)
    counted = [layer(x, count) for count, layer in enumerate(self.counted)]
    for layer in self.valued.values():
        x = layer(x)
    named = {key: layer(x) for key, layer in self.named.items()}
    chosen = self.chosen[number]
    x = chosen(x) + self.behind[number + 1](x) + sum(listed) + summed + sum(counted)
    return self.indexed[number](x) + self.last[-1](x), named


def maps_elements(self: Any, x: Any) -> Any:
    for layer7 in map(lambda inner: inner.conv, self.mapped):  # noqa: C417 - this is the point
        x = layer7(x)
    x += [layer8(x) for layer8 in map(lambda inner: inner.conv, self.listed)]  # noqa: C417
    x += sum(layer9(x) for layer9 in filter(None, self.filtered))
    return x


def opens_elements(self: Any, x: Any, run: Any) -> Any:
    for layer in self.looped:
        for inner in layer:
            x = inner(x)
    for layer2 in self.handed:
        x = run(layer2, x)
    for layer3 in self.later:
        x = layer3(x)
    x = layer3[0](x)
    for layer4 in self.asked:
        x = layer4(layer4.weight)
    for layer5 in self.renamed:
        y = layer5
        x = y[0](x)
    for layer6 in self.set_again:
        x = layer6(x)
        layer6 = x[0](x)  # noqa: PLW2901
        x = layer6[0](x)
    x = [layer.weight for layer in self.weighed] + [[inner(x) for inner in layer] for layer in self.nested]
    x += [run(layer) for layer in self.given.values()] + [self.keys[key] for key in self.keys]
    sliced = self.sliced[1:]
    return self.indexed[0][1](x) + self.kept[0] + sliced[0](x)


def test_elements_that_are_only_called() -> None:
    found = mentions(calls_elements.__code__)
    assert found.elements == {
        *("plain", "numbered", "zipped", "nested", "again", "indexed", "last"),
        *("listed", "summed", "counted", "valued", "named", "chosen", "behind"),
    }
    assert not found.read


def calls_parts(self: Any, x: Any) -> Any:
    for layer in self.part[1:]:
        x = layer(x)
    for _, layer in enumerate(reversed(self.part_of_part[: self.number][::2])):
        x = layer(x)
    return x + sum(layer(x) for layer in self.listed[len(x) :]) + self.called[:2](x)


def opens_parts(self: Any, x: Any) -> Any:
    part = self.kept[1:]
    for layer in self.looped[self.numbers[0] :]:
        x = layer.conv(x)
    return x + self.element[0][1:](x) + part[0](x) + self.attribute[:2].weight


def test_parts_of_which_the_elements_are_only_called() -> None:
    found = mentions(calls_parts.__code__)
    assert found.elements == {"part", "part_of_part", "listed", "called"}
    assert found.read == {"number"}
    found = mentions(opens_parts.__code__)
    assert found.elements == set()
    assert found.handed >= {"kept", "looped", "element", "attribute"}


def test_elements_that_may_be_opened() -> None:
    found = mentions(opens_elements.__code__)
    assert not found.elements
    assert found.read >= {"looped", "handed", "later", "asked", "renamed", "set_again", "indexed", "kept"}
    assert found.read >= {"weighed", "nested", "given", "keys", "sliced"}


def test_elements_that_a_function_opens_before_they_are_called() -> None:
    found = mentions(maps_elements.__code__)
    assert not found.elements
    assert found.read >= {"mapped", "listed"}
    assert {name for _, name, _ in found.claimed} == {"filtered"}
