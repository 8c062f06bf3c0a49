"""Settings: the file, and the values in force. Precedence: option > environment > settings file > default."""

from __future__ import annotations

import os
from dataclasses import dataclass, fields, replace
from pathlib import Path

from sglora_cli.config import RuntimeConfig
from sglora_cli.errors import BadFile, UnknownName
from sglora_cli.files.atomic import write_bytes
from sglora_cli.files.toml import toml_table
from sglora_cli.files.untrusted import TOML_LIMIT, read_bytes
from sglora_cli.system.paths import settings_file


@dataclass(frozen=True)
class Settings:
    """What a user can set once for all commands. An empty string means not set."""

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
class Setting:
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
    """The content of the settings file; "" if there is none. Raises BadFile."""
    path = settings_file()
    try:
        return read_bytes(path, TOML_LIMIT).decode("utf-8") if path.exists() else ""
    except UnicodeDecodeError as error:
        raise BadFile(f"{path}: {error}", "mend or remove it") from None


def current() -> dict[str, Setting]:
    """Every setting in force, with its origin. Raises as `parsed`."""
    values = parsed(file_text(), settings_file())
    settings = {}
    for spec in fields(Settings):
        if (value := os.environ.get(variable(spec.name))) is not None:
            settings[spec.name] = Setting(value, "environment")
        elif spec.name in values:
            settings[spec.name] = Setting(values[spec.name], "file")
        else:
            settings[spec.name] = Setting(str(spec.default), "default")
    return settings


def load() -> Settings:
    """The settings in force. Raises BadFile with the line, or UnknownName for a key that does not exist."""
    return Settings(**{name: one.value for name, one in current().items()})


def runtime(config: RuntimeConfig, backbone: str, exact: bool = False) -> RuntimeConfig:
    """The config for a backbone of that name; the settings supply the device and weights that it leaves open.

    exact: whether the work compares to the last digits, see `full_precision`.
    """
    settings = load()
    weights = config.weights or (settings.weights if backbone == settings.backbone else "")
    config = replace(config, device=config.device or settings.device, weights=weights)
    return full_precision(config) if exact else config


def full_precision(config: RuntimeConfig) -> RuntimeConfig:
    """The config for work that compares to the last digits: full precision, unless the user chose another."""
    return replace(config, precision="fp32") if config.precision == "auto" else config


def check_key(key: str) -> None:
    """Raises UnknownName unless `key` is a setting."""
    names = [spec.name for spec in fields(Settings)]
    if key not in names:
        raise UnknownName.of("setting", key, names)


def write_setting(key: str, value: str | None) -> Path:
    """Set a key of the settings file, or remove it (None); comments and everything else stay as they are.

    Returns the file. Raises as `parsed` if the file is wrong already.
    """
    import tomlkit  # not at the top: every command reads settings, only one changes them
    from tomlkit.exceptions import TOMLKitError

    path, text = settings_file(), file_text()
    parsed(text, path)
    try:
        document = tomlkit.parse(text)
    except TOMLKitError as error:  # tomlkit supports less of TOML 1.1 than tomli
        raise BadFile(f"{path}: {error}", "mend or remove it") from None
    if value is None:
        document.pop(key, None)
    else:
        document[key] = value
    if (new := tomlkit.dumps(document)) != text:
        write_bytes(path, new.encode())
    return path
