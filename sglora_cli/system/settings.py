"""Settings: the file, and the values in force. Precedence: option > environment > settings file > default."""

from __future__ import annotations

import os
from dataclasses import dataclass, fields, replace
from pathlib import Path

from sglora_cli.config import RuntimeConfig
from sglora_cli.errors import BadFile, Unavailable, UnknownName, UsageError
from sglora_cli.files.hashes import data_hash
from sglora_cli.files.swap import ABSENT, swapped
from sglora_cli.files.toml import toml_table
from sglora_cli.files.untrusted import TOML_LIMIT, read_bytes
from sglora_cli.system.hardware import usable_device
from sglora_cli.system.paths import settings_file

_TRIES = 10
"""A setting is written again if the file was changed in between; so often at most."""


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
    return _decoded(read_bytes(path, TOML_LIMIT), path) if path.exists() else ""


def _decoded(data: bytes, path: Path) -> str:
    try:
        return data.decode("utf-8")
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

    A device of the settings that this machine lacks is the CPU, with a note.
    exact: whether the work compares to the last digits, see `full_precision`.
    """
    settings = load()
    weights = config.weights or (settings.weights if backbone == settings.backbone else "")
    config = replace(config, device=config.device or device_of_settings(), weights=weights)
    return full_precision(config) if exact else config


def device_of_settings() -> str:
    """The device of the settings, "" if there is none; see `usable_device`. Raises UsageError."""
    one = current()["device"]
    try:
        return usable_device(one.value, variable("device") if one.origin == "environment" else "the settings")
    except UsageError as error:
        raise UsageError(error.message, unset("device", one)) from None


def unset(key: str, one: Setting) -> str:
    """The command that drops a setting.

    >>> unset("pack", Setting("gone", "file")), unset("pack", Setting("gone", "environment"))
    ('sglora settings unset pack', 'unset SGLORA_PACK')
    """
    return f"unset {variable(key)}" if one.origin == "environment" else f"sglora settings unset {key}"


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

    Returns the file. Raises as `parsed` if the file is wrong already, Unavailable if others write it all the time.
    """
    path = settings_file()
    for _ in range(_TRIES):
        data = read_bytes(path, TOML_LIMIT) if path.exists() else None
        new = _with_setting(_decoded(data or b"", path), key, value, path).encode()
        if new == (data or b"") or swapped(path, ABSENT if data is None else data_hash(data), new):
            return path
    raise Unavailable(f"{path} is changed again and again by another program", "end that program, then run it again")


def _with_setting(text: str, key: str, value: str | None, path: Path) -> str:
    import tomlkit  # not at the top: every command reads settings, only one changes them
    from tomlkit.exceptions import TOMLKitError

    parsed(text, path)
    try:
        document = tomlkit.parse(text)
    except TOMLKitError as error:  # tomlkit supports less of TOML 1.1 than tomli
        raise BadFile(f"{path}: {error}", "mend or remove it") from None
    if value is None:
        document.pop(key, None)
    else:
        document[key] = value
    return tomlkit.dumps(document)
