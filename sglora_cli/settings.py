"""User folders and settings. Order: option > environment > settings file > default."""

from __future__ import annotations

import os
from dataclasses import dataclass, fields, replace
from pathlib import Path

import platformdirs

from sglora_cli.configs import RuntimeConfig
from sglora_cli.errors import BadFile, Unavailable, UnknownName
from sglora_cli.strict import TOML_LIMIT, read_bytes, toml_table


def home() -> Path | None:
    """The one folder that replaces all user folders, if SGLORA_HOME is set. Raises Unavailable if it is a file."""
    value = os.environ.get("SGLORA_HOME")
    if not value:
        return None
    folder = Path(value).expanduser()
    if folder.is_file():
        raise Unavailable(f"SGLORA_HOME is {value}, a file", "name a folder; it is made if it does not exist")
    return folder


def cache_folder() -> Path:
    """Packs, generated adapters, features, unfinished work."""
    own = home()
    return own / "cache" if own else Path(platformdirs.user_cache_dir("sglora", appauthor=False))


def settings_file() -> Path:
    own = home()
    return (own or Path(platformdirs.user_config_dir("sglora", appauthor=False))) / "settings.toml"


@dataclass(frozen=True)
class Settings:
    """What a user may fix once: empty means not set."""

    pack: str = ""
    """Pack used when a command names none."""
    backbone: str = "clip-vit-b-16"
    """Default backbone: the newest built pack of it is preferred."""
    data: str = ""
    """Folder that holds the data sets."""
    generator: str = ""
    """Generator used when a command names none; else the pack's own choice."""
    device: str = ""
    """Device used when a command names none; else a CUDA GPU if there is one."""
    weights: str = ""
    """Weights of the default backbone: a file or folder. Other backbones do not look at it."""


@dataclass(frozen=True)
class Found:
    """The value of a setting, and where it comes from: "environment", "file" or "default"."""

    value: str
    origin: str


def variable(name: str) -> str:
    """
    >>> variable("pack")
    'SGLORA_PACK'
    """
    return f"SGLORA_{name.upper()}"


def parsed(text: str, path: Path) -> dict[str, str]:
    """The content of a settings file. Raises BadFile with the line, or UnknownName for a key that does not exist."""
    names = [spec.name for spec in fields(Settings)]
    try:
        values = toml_table(text)
    except ValueError as error:
        raise BadFile(f"{path}: {error}", "mend or remove it") from None
    for key, value in values.items():
        if key not in names:
            raise UnknownName.of(f"setting in {path}", key, names)
        if not isinstance(value, str):
            raise BadFile(f"{path}: {key} must be a text, got {value!r}", f'write {key} = "..."')
    return values


def file_text() -> str:
    """The settings file as it is; "" if there is none. Raises BadFile."""
    path = settings_file()
    try:
        return read_bytes(path, TOML_LIMIT).decode("utf-8") if path.exists() else ""
    except UnicodeDecodeError as error:
        raise BadFile(f"{path}: {error}", "mend or remove it") from None


def found() -> dict[str, Found]:
    """Every setting in force. Raises as `parsed`."""
    values = parsed(file_text(), settings_file())
    result = {}
    for spec in fields(Settings):
        if (value := os.environ.get(variable(spec.name))) is not None:
            result[spec.name] = Found(value, "environment")
        elif spec.name in values:
            result[spec.name] = Found(values[spec.name], "file")
        else:
            result[spec.name] = Found(str(spec.default), "default")
    return result


def load() -> Settings:
    """The settings in force. Raises BadFile with the line, or UnknownName for a key that does not exist."""
    return Settings(**{name: one.value for name, one in found().items()})


def runtime(config: RuntimeConfig, backbone: str) -> RuntimeConfig:
    """The config with what it leaves open taken from the settings, for a backbone of that name."""
    known = load()
    weights = config.weights or (known.weights if backbone == known.backbone else "")
    return replace(config, device=config.device or known.device, weights=weights)


def exact(config: RuntimeConfig) -> RuntimeConfig:
    """The config for work that compares to the last digits: full precision, unless the user chose another."""
    return replace(config, precision="fp32") if config.precision == "auto" else config
