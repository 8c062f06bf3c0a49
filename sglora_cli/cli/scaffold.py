"""Creates a plugin distribution with tests from the files in templates/."""

from __future__ import annotations

import keyword
import re
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path

from sglora_cli.errors import UsageError
from sglora_cli.files.atomic import put_folder, scratch_folder

PREFIX = "sglora-"
_LONGEST = 24  # a longer name would make lines of the templates too long
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9]*(?:[-_.][A-Za-z0-9]+)*")


def value_name(name: str) -> str:
    """Normalise a plugin name as package indexes do and strip the prefix. Raises UsageError for an invalid name.

    >>> value_name("Red_Birds"), value_name("sglora-red-birds")
    ('red-birds', 'red-birds')
    """
    normal = re.sub(r"[-_.]+", "-", name).lower().removeprefix(PREFIX)
    if not _NAME.fullmatch(name) or not _NAME.fullmatch(normal) or len(normal) > _LONGEST:
        raise UsageError(
            f"{name!r:.100} is not a valid plugin name",
            f"use at most {_LONGEST} letters and digits, a letter first, and single dashes between words",
        )
    return normal


def new_plugin(name: str, kind: str, parent: Path) -> Path:
    """Write the distribution `sglora-NAME` to a new folder with that name in `parent` and return the folder.

    Raises UsageError if the name is invalid or taken, or if the folder exists.
    """
    value = value_name(name)
    module, folder = f"{PREFIX}{value}".replace("-", "_"), parent / f"{PREFIX}{value}"
    if folder.exists():
        raise UsageError(f"{folder} already exists", "choose another name, or another folder with -o")
    if keyword.iskeyword(module) or find_spec(module):
        raise UsageError(f"a module {module!r} is already installed", "choose another name")
    with scratch_folder(folder) as draft:
        for path, text in content(value, module, kind).items():
            target = draft / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text, encoding="utf-8", newline="\n")
        put_folder(draft, folder)
    return folder


def content(value: str, module: str, kind: str) -> dict[str, str]:
    """Return the text of each file, by its path in the distribution."""
    sources = {
        "pyproject.toml": "project.toml",
        "README.md": "readme.md",
        f"{module}/__init__.py": f"{kind}.py",
        f"tests/test_{module}.py": f"{kind}_test.py",
        **({f"{module}/model.py": "model.py"} if kind == "backbone" else {}),
    }
    folder = files("sglora_cli.cli.templates")
    texts = {path: (folder / source).read_text(encoding="utf-8") for path, source in sources.items()}
    words = {
        "sglora_example": module,
        "sglora-example": PREFIX + value,
        "Example": "".join(part.capitalize() for part in value.split("-")),
        "example": value,
        "KIND": {"dataset": "data set"}.get(kind, kind),
        " CHECK": " --path FOLDER" if kind == "dataset" else "",
    }
    pattern = re.compile("|".join(words))
    changed = {path: pattern.sub(lambda word: words[word[0]], text) for path, text in texts.items()}
    return {**changed, f"{module}/py.typed": ""}
