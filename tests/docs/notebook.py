"""Run the cells of the tutorial's notebook, and write the notebook with what they print.

    python -m tests.docs.notebook

The notebook itself is the source. Change its cells in Jupyter or an editor, and then run this. A fresh kernel runs the
cells in an empty folder, with user folders of its own and without the network. Nothing is written that differs from run
to run. The numbers of a cell with the tag `numbers-vary` may differ between machines.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import Any

NOTEBOOK = Path(__file__).parents[2] / "sglora_cli" / "docs" / "tutorial.ipynb"
"""The notebook of the checkout, even if another version is installed."""
VARY = "numbers-vary"
_SECONDS = 300


def executed(notebook: Any) -> Any:
    """Return the notebook with the outputs of a fresh kernel. Raises CellExecutionError if a cell fails."""
    from nbclient import NotebookClient

    with tempfile.TemporaryDirectory() as folder:
        for name in [name for name in os.environ if name.startswith(("SGLORA_", "JUPYTER_", "PYTHONWARN"))]:
            del os.environ[name]
        for name in ("SGLORA_HOME", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR"):
            place = Path(folder, name.lower())
            place.mkdir()
            os.environ[name] = str(place)
        os.environ.update(SGLORA_OFFLINE="1", OMP_NUM_THREADS="1", CUDA_VISIBLE_DEVICES="")
        work = Path(folder, "work")
        work.mkdir()
        options = {"timeout": _SECONDS, "kernel_name": "python3", "resources": {"metadata": {"path": str(work)}}}
        NotebookClient(notebook, **options).execute()
    return plain(notebook)


def plain(notebook: Any) -> Any:
    """Return the notebook without anything that differs between runs or editors."""
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    count = 0
    for number, cell in enumerate(notebook.cells, 1):
        cell.id = f"cell-{number:02}"
        cell.metadata = {"tags": [VARY]} if VARY in cell.metadata.get("tags", []) else {}
        if cell.cell_type == "code":
            count += 1
            cell.execution_count = count
            cell.outputs = _joined(cell.outputs)
            for output in cell.outputs:
                output.pop("transient", None)
                if "execution_count" in output:
                    output.execution_count = count
    return notebook


def _joined(outputs: list[Any]) -> list[Any]:
    """Join everything that a cell prints into one output, and drop standard error.

    Progress and warnings of libraries, which go to standard error, differ from run to run.
    """
    kept: list[Any] = []
    printed = None
    for output in outputs:
        if output.output_type != "stream":
            kept.append(output)
        elif output.name == "stdout" and printed:
            printed.text += output.text
        elif output.name == "stdout":
            kept.append(printed := output)
    return kept


def main() -> None:
    """Run the notebook of the first argument, or the tutorial's, and write it to the second argument, or in place."""
    import nbformat

    source = Path(sys.argv[1]) if len(sys.argv) > 1 else NOTEBOOK
    target = Path(sys.argv[2]) if len(sys.argv) > 2 else source
    notebook = executed(nbformat.read(source, as_version=4))
    nbformat.validate(notebook)
    target.write_text(nbformat.writes(notebook) + "\n", encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main()
