"""A name -> a plugin distribution with tests, from the files of templates/."""

from __future__ import annotations

import keyword
import re
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path

from sglora_cli.errors import UsageError
from sglora_cli.files.atomic import put_folder, scratch_folder

PREFIX = "sglora-"
_LONGEST = 24  # longer names would break lines of the templates
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9]*(?:[-_.][A-Za-z0-9]+)*")


def value_name(name: str) -> str:
    """`Red_Birds` and `sglora-red-birds` -> `red-birds`, normalised as package indexes do it. Raises UsageError.

    >>> value_name("Red_Birds"), value_name("sglora-red-birds")
    ('red-birds', 'red-birds')
    """
    normal = re.sub(r"[-_.]+", "-", name).lower().removeprefix(PREFIX)
    if not _NAME.fullmatch(name) or not _NAME.fullmatch(normal) or len(normal) > _LONGEST:
        raise UsageError(
            f"{name!r:.100} is no name for a plugin",
            f"take at most {_LONGEST} letters and digits, a letter first, with single dashes between words",
        )
    return normal


def new_plugin(name: str, kind: str, parent: Path) -> Path:
    """Write the distribution `sglora-NAME` into a new folder of that name in `parent`; returns the folder.

    Raises UsageError for a name that cannot be one or is taken, and for a folder that exists.
    """
    value = value_name(name)
    module, folder = f"{PREFIX}{value}".replace("-", "_"), parent / f"{PREFIX}{value}"
    if folder.exists():
        raise UsageError(f"{folder} exists already", "choose another name, or another place with -o")
    if keyword.iskeyword(module) or find_spec(module):
        raise UsageError(f"a module {module!r} is installed already", "choose another name")
    with scratch_folder(folder) as draft:
        for path, text in content(value, module, kind).items():
            target = draft / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text, encoding="utf-8", newline="\n")
        put_folder(draft, folder)
    return folder


def content(value: str, module: str, kind: str) -> dict[str, str]:
    """Path in the distribution -> text of each of its files."""
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
