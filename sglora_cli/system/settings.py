"""The settings file and the effective settings. Precedence: option > environment > settings file > default."""

from __future__ import annotations

import os
from dataclasses import dataclass, fields, replace
from pathlib import Path

from sglora_cli.config import RuntimeConfig
from sglora_cli.errors import BadFile, Unavailable, UnknownName, UsageError, missing_hint
from sglora_cli.files.hashes import data_hash
from sglora_cli.files.swap import ABSENT, swapped
from sglora_cli.files.text import decoded
from sglora_cli.files.toml import toml_table
from sglora_cli.files.untrusted import TOML_LIMIT, read_bytes
from sglora_cli.system.hardware import usable_device
from sglora_cli.system.paths import settings_file

_TRIES = 10
"""Attempts to write a setting while other programs change the file."""


@dataclass(frozen=True)
class Settings:
    """Settings for all commands. An empty string means not set."""

    pack: str = ""
    """Pack to use if a command does not name one."""
    backbone: str = "clip-vit-b-16"
    """Default backbone. Its newest built pack is preferred."""
    data: str = ""
    """Folder that contains the data sets."""
    generator: str = ""
    """Generator to use if a command does not name one, otherwise the pack's default."""
    device: str = ""
    """Device to use if a command does not name one, otherwise a CUDA GPU if available."""
    weights: str = ""
    """Weights of the default backbone, a file or folder. Other backbones ignore it."""
    executor: str = ""
    """Executor of builds and measurements if a command does not name one, otherwise this process."""


@dataclass(frozen=True)
class Setting:
    """The value of a setting and its origin: "environment", "file" or "default"."""

    value: str
    origin: str


def variable(name: str) -> str:
    """
    >>> variable("pack")
    'SGLORA_PACK'
    """
    return f"SGLORA_{name.upper()}"


def parsed(text: str, path: Path) -> dict[str, str]:
    """Parse a settings file. Raises BadFile with the line, or UnknownName for an unknown key."""
    names = [spec.name for spec in fields(Settings)]
    try:
        values = toml_table(text)
    except ValueError as error:
        raise BadFile(f"{path}: {error}", "fix or delete it") from None
    for key, value in values.items():
        if key not in names:
            raise UnknownName.of(f"setting in {path}", key, names)
        if not isinstance(value, str):
            raise BadFile(f"{path}: {key} must be a string, got {value!r}", f'write {key} = "..."')
    return values


def file_text() -> str:
    """Return the content of the settings file, or "" if there is none. Raises BadFile."""
    path = settings_file()
    return decoded(read_bytes(path, TOML_LIMIT), str(path)) if path.exists() else ""


def current() -> dict[str, Setting]:
    """Return every effective setting with its origin. Raises the errors of `parsed`."""
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
    """Return the effective settings. Raises BadFile with the line, or UnknownName for an unknown key."""
    return Settings(**{name: one.value for name, one in current().items()})


def runtime(config: RuntimeConfig, backbone: str, exact: bool = False) -> RuntimeConfig:
    """Return the config for a backbone, with device and weights from the settings where the config has none.

    If this machine lacks the device of the settings, the CPU is used with a note.
    exact: whether results are compared to the last digit, see `full_precision`.
    """
    settings = load()
    weights = config.weights or (settings.weights if backbone == settings.backbone else "")
    config = replace(config, device=config.device or device_of_settings(), weights=weights)
    return full_precision(config) if exact else config


def missing_weights_hint(config: RuntimeConfig, backbone: str) -> str:
    """Return the hint for weights of a backbone that were named but do not exist, or "" if there are none."""
    weights = runtime(config, backbone).weights
    path = Path(weights).expanduser()
    if not weights or path.exists():
        return ""
    drop = "omit --weights" if config.weights else unset("weights", current()["weights"])
    return missing_hint(path, f"{drop} to use the backbone's own weights")


def device_of_settings() -> str:
    """Return the usable device of the settings, or "" if there is none (see `usable_device`). Raises UsageError."""
    one = current()["device"]
    try:
        return usable_device(one.value, variable("device") if one.origin == "environment" else "the settings")
    except UsageError as error:
        raise UsageError(error.message, unset("device", one)) from None


def unset(key: str, one: Setting) -> str:
    """Return the command that removes a setting.

    >>> unset("pack", Setting("gone", "file")), unset("pack", Setting("gone", "environment"))
    ('sglora settings unset pack', 'unset SGLORA_PACK')
    """
    return f"unset {variable(key)}" if one.origin == "environment" else f"sglora settings unset {key}"


def full_precision(config: RuntimeConfig) -> RuntimeConfig:
    """Return the config for exact comparisons: full precision unless the user chose another one."""
    return replace(config, precision="fp32") if config.precision == "auto" else config


def check_key(key: str) -> None:
    """Raise UnknownName unless `key` is a setting."""
    names = [spec.name for spec in fields(Settings)]
    if key not in names:
        raise UnknownName.of("setting", key, names)


def write_setting(key: str, value: str | None) -> Path:
    """Set or remove (None) a key of the settings file, preserving comments and everything else.

    Returns the file. Raises the errors of `parsed` if the file is invalid, Unavailable if other programs keep changing
    it.
    """
    path = settings_file()
    for _ in range(_TRIES):
        data = read_bytes(path, TOML_LIMIT) if path.exists() else None
        new = _with_setting(decoded(data or b"", str(path)), key, value, path).encode()
        if new == (data or b"") or swapped(path, ABSENT if data is None else data_hash(data), new):
            return path
    raise Unavailable(f"another program keeps changing {path}", "stop that program, then run the command again")


def _with_setting(text: str, key: str, value: str | None, path: Path) -> str:
    import tomlkit  # imported here, because every command reads settings but few change them
    from tomlkit.exceptions import TOMLKitError

    parsed(text, path)
    try:
        document = tomlkit.parse(text)
    except TOMLKitError as error:  # tomlkit supports less of TOML 1.1 than tomli
        raise BadFile(f"{path}: {error}", "fix or delete it") from None
    if value is None:
        document.pop(key, None)
    else:
        document[key] = value
    return tomlkit.dumps(document)
