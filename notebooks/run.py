"""Execute the notebooks in place, and leave nothing in them that changes from one run to the next but results.

``python notebooks/run.py`` for all of them, ``python notebooks/run.py 01_tutorial.ipynb`` for one.
"""

from __future__ import annotations

import base64
import io
import os
import sys
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient
from PIL import Image

HERE = Path(__file__).parent
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
# Warnings are errors, but for those of packages that have no better way to be told.
WARNINGS = (
    "error",
    "ignore:IProgress not found",  # tqdm would like to draw its bars as widgets
    "ignore:For consistency across implementations",  # ipykernel, of itself, when it ends
)


def execute(notebook: Any, folder: Path) -> None:
    """Run all cells in a fresh kernel that is started in ``folder``.

    Raises:
        nbclient.exceptions.CellExecutionError: a cell raised.
    """
    client = NotebookClient(
        notebook,
        timeout=300,
        kernel_name="python3",
        record_timing=False,
        coalesce_streams=True,
        resources={"metadata": {"path": str(folder)}},
    )
    client.execute(env={**os.environ, "PYTHONWARNINGS": ",".join(WARNINGS)})


def normalise(notebook: Any) -> None:
    """Take out what depends on the machine, the time and the editor."""
    notebook.metadata = nbformat.from_dict(METADATA)  # type: ignore[no-untyped-call] # nbformat is typed in part
    for cell in notebook.cells:
        cell.metadata = nbformat.from_dict({})  # type: ignore[no-untyped-call] # likewise
        for output in cell.get("outputs", []):
            if "metadata" in output:
                output.metadata = nbformat.from_dict({})  # type: ignore[no-untyped-call] # likewise
            if "image/png" in output.get("data", {}):
                output.data["image/png"] = smaller(output.data["image/png"])


def smaller(encoded: str) -> str:
    """Return an image with few colours, which drawings and plots need no more of: a third of the bytes."""
    image = Image.open(io.BytesIO(base64.b64decode(encoded))).convert("RGB").quantize(64)
    file = io.BytesIO()
    image.save(file, "png", optimize=True)
    return base64.b64encode(file.getvalue()).decode()


def main() -> None:
    """Refresh the notebooks that are named, or all."""
    for path in [HERE / name for name in sys.argv[1:]] or sorted(HERE.glob("*.ipynb")):
        notebook = nbformat.read(path, as_version=4)  # type: ignore[no-untyped-call] # likewise
        execute(notebook, HERE)
        normalise(notebook)
        nbformat.write(notebook, path)  # type: ignore[no-untyped-call] # likewise
        print(f"{path.name}: {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
