"""Converts a pack of an older format to the current one: the same parameters in other files."""

from __future__ import annotations

import warnings
from functools import partial
from pathlib import Path

from sglora_cli.config import RuntimeConfig
from sglora_cli.errors import SgloraError, SgloraWarning
from sglora_cli.pack.content.manifest import FORMAT
from sglora_cli.pack.coverage import SeenTasks
from sglora_cli.pack.library import Library, PackLocation
from sglora_cli.pack.loaded import LoadedPack
from sglora_cli.pack.pack import Pack
from sglora_cli.pack.writer import edited
from sglora_cli.plugin.host import Host
from sglora_cli.plugin.sentences import meaning
from sglora_cli.system import settings
from sglora_cli.system.locks import pack_lock


def migrate(host: Host, location: PackLocation, runtime: RuntimeConfig | None = None) -> Path:
    """Convert a pack to the current format and return its folder, which is a copy for a bundled pack.

    A pack that already has the format is not changed. If its backbone is missing on this machine, the coverage of its
    tasks is not stored but computed with the first sentence.
    """
    library = Library(host.recipe_folders)
    with pack_lock(target := library.own_folder(location.folder)):
        pack = Pack(library.copied(location.folder))
        if pack.format == FORMAT:
            return pack.folder
        seen = _seen(host, pack, runtime)
        with edited(pack, target) as draft:
            if seen is not None:
                seen.save(draft.folder)
    return target


def _seen(host: Host, pack: Pack, runtime: RuntimeConfig | None) -> SeenTasks | None:
    try:
        model = LoadedPack(host, pack, settings.runtime(runtime or RuntimeConfig(), pack.backbone)).model
    except SgloraError as error:
        message = (
            f"the coverage of its tasks is not stored, it will be computed with the first sentence: {error.message}"
        )
        warnings.warn(message, SgloraWarning, 2)
        return None
    return SeenTasks.of(pack, partial(meaning, model))
