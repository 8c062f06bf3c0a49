"""User folders: the cache for packs and adapters, and the configuration for settings."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import platformdirs

from sglora_cli.errors import Unavailable, missing_hint
from sglora_cli.files.escape import shell_word


def home() -> Path | None:
    """Return the folder that replaces all user folders if SGLORA_HOME is set. Raises Unavailable if it is a file."""
    value = os.environ.get("SGLORA_HOME")
    if not value:
        return None
    folder = expanded(value)
    if folder.is_file():
        raise Unavailable(f"SGLORA_HOME is {value}, a file", "name a folder; it is made if it does not exist")
    return folder


def expanded(value: str | Path) -> Path:
    """Return a path with the home folder in the place of `~`. Raises Unavailable if it is unknown."""
    try:
        return Path(value).expanduser()
    except RuntimeError:
        raise Unavailable(f"the home folder in {value} is unknown", "write the path in full, without ~") from None


def cache_folder() -> Path:
    """Return the folder of packs, generated adapters, features and unfinished work. Raises Unavailable."""
    own = home()
    return own / "cache" if own else _user_folder(platformdirs.user_cache_dir)


def settings_file() -> Path:
    """Return the path of the settings file, which may not exist. Raises Unavailable."""
    return (home() or _user_folder(platformdirs.user_config_dir)) / "settings.toml"


def _user_folder(find: Callable[..., str]) -> Path:
    try:
        return Path(find("sglora", appauthor=False))
    except RuntimeError:  # a container may run as a user without a name and without HOME
        raise Unavailable(
            "the home folder of this user is unknown", "export SGLORA_HOME=FOLDER with a writable FOLDER"
        ) from None


def built_folder() -> Path:
    """Return the folder of packs that were built or imported on this machine."""
    return cache_folder() / "packs"


def data_folder(option: str | Path | None, setting: str, flag: str = "--data") -> Path:
    """Return the folder of the data sets: option (`flag`) > environment > settings. Raises Unavailable."""
    value = str(option or setting)
    if not value:
        raise Unavailable(
            "no folder with data is known",
            f"sglora settings set data DIR, or pass {flag} DIR, or set SGLORA_DATA",
        )
    path = expanded(value)
    of = "" if option else " of SGLORA_DATA" if os.environ.get("SGLORA_DATA") == value else " of the setting `data`"
    other = "pass a folder that contains a subfolder for each data set" if option else f"pass {flag} DIR"
    if path.is_file():
        raise Unavailable(f"the data folder {path}{of} is a file", other)
    if not path.is_dir():
        make = "mkdir" if path.absolute().parent.is_dir() else "mkdir -p"
        remedy = f"create it with {make} {shell_word(path)}, or {other}"
        raise Unavailable(f"the data folder {path}{of} does not exist", missing_hint(path, remedy))
    return path
