"""Parts of open_clip without the rest of it.

`import open_clip` imports torchvision, timm and, if installed, transformers. This takes longer than making an
adapter, which only needs a tokenizer, a table of weights and the configuration of an architecture.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

from sglora_cli.api import Unavailable, UnknownName, read_json

_ALONE = f"{__package__}._open_clip"
"""The name of a package with open_clip's modules and an empty `__init__`."""


def part(name: str) -> Any:
    """Return open_clip's module `constants`, `pretrained`, `tokenizer` or `version`, which import no other modules.

    If open_clip is imported, it is open_clip's own module, otherwise a second instance loaded from the same file.
    """
    if "open_clip" in sys.modules:
        return import_module(f"open_clip.{name}")
    if _ALONE not in sys.modules:
        package = ModuleType(_ALONE)
        package.__path__ = [str(_folder())]
        sys.modules[_ALONE] = package
    return import_module(f"{_ALONE}.{name}")


def configuration(architecture: str) -> Mapping[str, Any]:
    """Return open_clip's configuration of an architecture. Raises UnknownName."""
    if "open_clip" in sys.modules:  # others may have been registered
        import open_clip

        known, found = open_clip.list_models(), open_clip.get_model_config(architecture)
    else:
        files = {path.stem: path for path in sorted((_folder() / "model_configs").glob("*.json"))}
        known, found = list(files), read_json(files[architecture]) if architecture in files else None
    if found is None:
        raise UnknownName.of("architecture in open_clip", architecture, known)
    config: Mapping[str, Any] = found
    return config


def _folder() -> Path:
    spec = find_spec("open_clip")
    if spec is None or spec.origin is None:
        raise Unavailable("open_clip is not installed", "pip install open_clip_torch")
    return Path(spec.origin).parent
