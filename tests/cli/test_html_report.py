"""The page that shows what was decided: what is in it, and that nothing in it can become markup."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import TYPE_CHECKING

import pytest
import torch
from torch import fx, nn

from fxfuse import explain, fx_fuse
from fxfuse.cli import html_report
from tests.cli import html_pages
from tests.cli.html_pages import HOSTILE, branches, chain, data_of, rows_of, states
from tests.support.helpers import trained

if TYPE_CHECKING:
    from collections.abc import Callable


MODELS = [chain, branches, *(getattr(html_pages, name) for name in ("in_parts", "twice", "exported"))]


def test_what_became_of_each_node() -> None:
    assert states(rows_of(chain())) == [
        ("input_1", "kept"),
        ("0", "changed"),
        ("1", "folded"),
        ("2", "kept"),
        ("3", "dropped"),
        ("4", "left"),
        ("output", "kept"),
    ]


def test_a_merge() -> None:
    rows = rows_of(branches(), torch.randn(2, 4, 8, 8, dtype=torch.float64))
    assert states(rows) == [
        ("x", "kept"),
        ("point", "merged"),
        ("square", "changed"),
        ("norm", "folded"),
        ("add", "merged"),
        ("add", "merged"),
        ("relu", "kept"),
        ("output", "kept"),
    ]
    assert {row["path"]: row["into"] for row in rows if "into" in row and row["module"]} == {
        "point": ["square"],
        "norm": ["square"],
    }
    assert set(rows[2]["absorbed"]) == {"norm", "point"}


def test_a_weight_that_moves_on_leaves_its_node() -> None:
    rows = {row["path"]: row for row in rows_of(html_pages.twice()) if row["module"]}
    assert rows["layer_norm"]["state"] == "folded"
    assert rows["layer_norm"]["before"]["facts"].endswith("elementwise_affine=True, bias=True")
    assert rows["layer_norm"]["after"]["facts"].endswith("elementwise_affine=False, bias=False")
    assert rows["linear"]["absorbed"] == ["layer_norm"]


@pytest.mark.parametrize("build", MODELS, ids=lambda build: build.__name__)
def test_every_decision_about_a_node_leads_to_it(build: Callable[[], nn.Module]) -> None:
    data = data_of(html_report.page(build()))
    led = {index for part in data["parts"] for row in part["rows"] for index in row.get("decisions", ())}
    without = {d["path"] for index, d in enumerate(data["decisions"]) if index not in led}
    assert without == ({"unused"} if build is html_pages.twice else set()), "only what is never called has no node"
    for part in data["parts"]:
        for row in part["rows"]:
            for decision in (data["decisions"][index] for index in row.get("decisions", ())):
                about_it = row["path"] == decision["path"] and row["state"] == decision["state"]
                assert about_it or row["path"] in decision["into"]


@pytest.mark.parametrize("build", [chain, branches, html_pages.twice], ids=lambda build: build.__name__)
def test_the_nodes_are_those_of_both_graphs(build: Callable[[], nn.Module]) -> None:
    rows, model = rows_of(build()), build()
    for side, graph in (("before", fx.symbolic_trace(model).graph), ("after", fx_fuse(model).graph)):
        shown = [row[side].get("kind") or row[side]["name"] for row in rows if row[side]]
        assert len(shown) == sum(node.op != "get_attr" for node in graph.nodes)  # type: ignore[union-attr] # a graph
        assert shown[-1] == "output"


def test_the_settings_of_a_layer_before_and_after() -> None:
    (row,) = [
        r
        for r in rows_of(trained(nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4))))
        if r["path"] == "0"
    ]
    assert row["before"]["facts"].endswith("bias=False")
    assert "bias" not in row["after"]["facts"]


def test_a_model_in_parts_shows_each_part() -> None:
    data = data_of(html_report.page(html_pages.in_parts()))
    assert data["structure"] == "module"
    assert [part["path"] for part in data["parts"]] == ["first", "second"]
    ((model, why),) = data["opaque"]
    assert model == "InParts"
    assert why


def test_a_program_shows_its_operations_and_not_its_constants() -> None:
    rows = rows_of(html_pages.exported())
    named = dict(states(rows))
    assert named["conv2d"] == "changed"
    assert named["gelu"] == "kept"
    assert [row["state"] for row in rows if "batch_norm" in (row["before"] or {}).get("name", "")] == ["folded", "left"]
    (conv,) = [row for row in rows if row["before"] and row["before"]["name"] == "conv2d"]
    assert conv["before"]["reads"] == ["0.weight", "0.bias"]


def test_totals() -> None:
    assert data_of(html_report.page(chain()))["totals"] == [
        ["1", "norms folded", ["folded", "norm"]],
        ["1", "norms left", ["left", "norm"]],
    ]
    program = torch.export.export(branches(), (torch.randn(2, 4, 8, 8, dtype=torch.float64),))
    saved = explain(program).saved
    assert saved.multiply_adds is not None
    assert data_of(html_report.page(program))["totals"] == [
        ["1", "norms folded", ["folded", "norm"]],
        ["1", "layers merged", ["merged"]],
        ["0", "norms left", ["left", "norm"]],
        [f"{saved.kernels}", "kernels saved by merges", []],
        [f"{saved.parameters}", "parameters saved by merges", []],
        [f"{saved.multiply_adds:,}", "multiply-adds saved by merges", []],
    ]


def test_each_fold_tells_its_evidence_and_the_totals_count_it() -> None:
    vectors = trained(nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8)))
    data = data_of(html_report.page(vectors))
    assert [decision["evidence"] for decision in data["decisions"]] == ["assumed"]
    assert ["1", "rest on an assumption", ["assumed"]] in data["totals"]
    assert "example_inputs prove it" in data["decisions"][0]["why"]
    proven = data_of(html_report.page(vectors, torch.randn(2, 4, dtype=torch.float64)))
    assert [decision["evidence"] for decision in proven["decisions"]] == ["traced"]
    assert [tags for _, _, tags in proven["totals"]] == [["folded", "norm"], ["left", "norm"]]


# -- one file, and nothing in it but text


class _Reader(HTMLParser):
    """Collects elements and attributes."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append(tag)
        self.attributes += attrs


def test_the_page_asks_for_nothing() -> None:
    page = html_report.page(chain())
    reader = _Reader(page)
    assert not {"link", "img", "iframe", "object", "embed", "base"} & set(reader.elements)
    assert not {"src", "href", "srcset", "action"} & {name for name, _ in reader.attributes}
    assert "url(" not in page
    assert "@import" not in page
    assert set(re.findall(r"https?://[^\"']+", page)) == {"http://www.w3.org/2000/svg"}, "the name of a namespace"
    policy = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
    assert ("content", policy) in reader.attributes


def test_names_are_never_markup() -> None:
    plain = html_report.page(html_pages.chain())
    page = html_report.page(
        html_pages.hostile(), title=HOSTILE, structure="module"
    )  # fx puts quotes into code as they are
    assert _Reader(page).elements == _Reader(plain).elements
    assert HOSTILE not in page
    data = data_of(page)
    assert data["title"] == HOSTILE
    assert [d["into"] for d in data["decisions"] if d["state"] == "folded"] == [[HOSTILE]]
    assert "<u>act</u>" in next(d["why"] for d in data["decisions"] if d["state"] == "left")


def test_a_title_is_no_place_to_fill_in() -> None:
    assert data_of(html_report.page(chain(), title="%%data $data {{data}}"))["title"] == "%%data $data {{data}}"
