"""Saved programs with code in them: a pickle in any record is not run, and nothing is written."""

from __future__ import annotations

import io
import json
import os
import pickle
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import nn

from tests.cli.export.checks import save, sentence

if TYPE_CHECKING:
    from collections.abc import Callable

    Records = dict[str, bytes]

WEIGHTS, CONSTANTS = "in/data/weights/model_weights_config.json", "in/data/constants/model_constants_config.json"


class Touches:
    """What runs when its pickle is read: it leaves a file."""

    def __reduce__(self) -> Any:
        return Path.touch, (Path("ran"),)


def torch_pickle(value: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def in_the_example_inputs(records: Records) -> None:
    records["in/data/sample_inputs/model.pt"] = torch_pickle(((Touches(),), {}))


def in_a_weight(records: Records) -> None:
    config = json.loads(records[WEIGHTS])
    entry = next(iter(config["config"].values()))
    entry["use_pickle"] = True
    records[WEIGHTS] = json.dumps(config).encode()
    records["in/data/weights/" + entry["path_name"]] = torch_pickle(Touches())


def in_all_weights_as_older_versions_wrote_them(records: Records) -> None:
    records["in/data/weights/model.pt"] = torch_pickle({"weight": Touches()})


def in_an_object(records: Records, name: str = "opaque_obj_0") -> None:
    entry = {"path_name": name, "is_param": False, "use_pickle": True, "tensor_meta": None}
    records[CONSTANTS] = json.dumps({"config": {"thing": entry}}).encode()
    records[f"in/data/constants/{name}"] = pickle.dumps(Touches())


def in_an_object_of_an_extension(records: Records) -> None:
    in_an_object(records, "custom_obj_0")


def in_a_library(records: Records) -> None:
    records["in/data/aotinductor/model/model.so"] = b"machine code"


@pytest.mark.parametrize(
    ("insert", "what"),
    [
        (in_the_example_inputs, "a pickle of more than tensors"),
        (in_a_weight, "a pickle of more than tensors"),
        (in_all_weights_as_older_versions_wrote_them, "a pickle of more than tensors"),
        (in_an_object, "a pickled Python object"),
        (in_an_object_of_an_extension, "an object of a C++ extension"),
        (in_a_library, "a compiled library"),
    ],
)
def test_no_code_in_a_file_is_run(
    folder: Path, capsys: Any, insert: Callable[[Records], None], what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(nn.Linear(2, 2), "in.pt2", torch.randn(3, 2))
    with zipfile.ZipFile("in.pt2") as archive:
        records = {name: archive.read(name) for name in archive.namelist()}
    insert(records)
    with zipfile.ZipFile("in.pt2", "w") as archive:
        for name, content in records.items():
            archive.writestr(name, content)
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    assert f'"in.pt2" holds {what}, which can run code' in sentence(capsys, folder, "in.pt2", "old.pt2")
    assert not Path("ran").exists()
    assert os.environ["TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"] == "1"
    assert "TORCH_FORCE_WEIGHTS_ONLY_LOAD" not in os.environ


def test_the_pickles_of_these_tests_do_run_elsewhere() -> None:
    pickle.loads(pickle.dumps(Touches()))
    assert Path("ran").exists()
