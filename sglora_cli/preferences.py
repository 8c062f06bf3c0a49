"""Changing the settings file: checked before it is written, and its comments stay."""

from __future__ import annotations

import json
import re
from dataclasses import fields
from pathlib import Path

from sglora_cli import settings, shelves
from sglora_cli.errors import BadFile, Unavailable, UnknownName, UsageError
from sglora_cli.files import write_bytes
from sglora_cli.host import Host


def put(host: Host, key: str, value: str) -> Path:
    """Set a value; returns the file. Raises UnknownName for a key or a value that names nothing, Unavailable for a
    file or device that is not here, UsageError for an empty value."""
    _check_key(key)
    value = _checked(host, key, value)
    return _written(key, json.dumps(value, ensure_ascii=False))


def drop(key: str) -> Path:
    """Set nothing any more; returns the file. Raises UnknownName."""
    _check_key(key)
    return _written(key, None)


def _check_key(key: str) -> None:
    names = [spec.name for spec in fields(settings.Settings)]
    if key not in names:
        raise UnknownName.of("setting", key, names)


def _checked(host: Host, key: str, value: str) -> str:
    """The value as it is written: paths are made absolute, they are to be found from everywhere."""
    if not value or "\n" in value:
        raise UsageError(f"{key} must be a text on one line, got {value!r}", f"sglora settings unset {key}")
    if key in ("data", "weights"):
        path = Path(value).expanduser().absolute()
        if not (path.is_dir() if key == "data" else path.exists()):
            raise Unavailable(
                f"{path} is not there", f"{key} names a {'folder' if key == 'data' else 'file or folder'}"
            )
        return str(path)
    if key == "pack":
        place, _ = shelves.find(value, host.recipe_folders, settings.Settings())
        return str(place.folder.absolute()) if place.origin == "folder" else value
    if key == "device":
        from sglora_cli.devices import pick_device

        pick_device(value)
    elif key == "backbone":
        host.backbones[value]
    else:
        host.generators[value]
    return value


def _written(key: str, value: str | None) -> Path:
    """Replace the value of a key (TOML), or add a line; all else stays as it is. None removes the key's line.

    Raises BadFile if the file is not written as such lines are.
    """
    path, text = settings.settings_file(), settings.file_text()
    wanted = settings.parsed(text, path)
    wanted.pop(key, None)
    wanted |= settings.parsed(f"{key} = {value}" if value else "", path)
    own = re.compile(rf"""(\s*["']?{key}["']?\s*=\s*)("[^"\\]*"|'[^']*')(\s*(#.*)?)""")
    lines, at = text.splitlines(), None
    for n, line in enumerate(lines):
        if match := own.fullmatch(line):
            at, lines[n] = n, f"{match[1]}{value}{match[3]}"
    if value and at is None:
        lines.append(f"{key} = {value}")
    elif not value and at is not None:
        del lines[at]
    new = "".join(f"{line}\n" for line in lines)
    try:
        as_meant = settings.parsed(new, path) == wanted
    except (BadFile, UnknownName):
        as_meant = False
    if not as_meant:
        raise BadFile(f"{path}: {key} is not on a line of its own", "change it by hand")
    if new != text:
        write_bytes(path, new.encode())
    return path
