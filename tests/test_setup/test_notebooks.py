"""The notebooks run from top to bottom, the second with the checkpoint of the first."""

import json

import nbformat
from nbclient import NotebookClient
from project import ROOT

FOLDER = ROOT / "docs/notebooks"


def execute(name):
    """Runs a notebook in its folder; returns what its cells print, and the number of images that they show."""
    notebook = nbformat.read(FOLDER / name, as_version=4)
    NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(FOLDER)}}).execute()
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    text = "".join(output.get("text", "") for output in outputs)
    return text, sum(
        "image/png" in output.get("data", {}) or "image/jpeg" in output.get("data", {}) for output in outputs
    )


def test_notebooks_run(tmp_path, monkeypatch):
    monkeypatch.setenv("NOTEBOOK_WORK", str(tmp_path))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    text, num_images = execute("pretrain_and_look.ipynb")
    assert "200 images" in text and "s1: " in text and "prototypes used by 100 cells" in text and num_images == 3
    text, num_images = execute("transfer.ipynb")
    assert "the same features: True" in text and "pre-trained: " in text and num_images == 1


def test_notebooks_have_no_outputs():
    for path in FOLDER.glob("*.ipynb"):
        cells = [cell for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "code"]
        assert cells and not any(cell["outputs"] or cell["execution_count"] for cell in cells)
