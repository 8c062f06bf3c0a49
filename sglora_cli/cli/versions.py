"""Installed versions, read from the metadata of distributions without importing them."""

from __future__ import annotations

import platform
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import metadata

from sglora_cli import __version__
from sglora_cli.plugin.hookspecs import GROUP

NAME = "sglora"
DEVELOPMENT = ("test", "oracle")
"""Extras for development, which users of the program do not need."""
_SHOWN = ("torch", "open_clip_torch", "timm", "numpy", "safetensors", "transformers", "peft")


@dataclass(frozen=True)
class Package:
    """A distribution that sglora requires, and its installed version."""

    name: str
    least: str
    version: str
    """Installed version, or "" if it is not installed."""
    extra: str = ""

    @property
    def wrong(self) -> str:
        """Why the package does not meet the requirement, or ""."""
        if not self.version:
            return f"{self.name} is not installed"
        too_old = _numbers(self.version) < _numbers(self.least)
        return f"{self.name} is {self.version}, sglora needs {self.least} or later" if too_old else ""


def version(name: str) -> str:
    """Return the version of a distribution, or "" if it is not installed."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""


def _numbers(text: str) -> list[int]:
    """Return the numbers in a version, without its local part.

    >>> _numbers("2.14.1+cu130") > _numbers("2.6")
    True
    """
    return [int(part) for part in re.findall(r"\d+", text.partition("+")[0])]


def wanted(requirements: Iterable[str] | None = None) -> list[Package]:
    """Return the packages that sglora's metadata requires, including extras, or [] if sglora is not installed."""
    if requirements is None:
        try:
            requirements = metadata.requires(NAME) or []
        except metadata.PackageNotFoundError:
            requirements = []
    packages = []
    for line in requirements:
        if match := re.match(r"([\w.-]+)\s*(?:>=\s*([\w.]+))?", line):
            extra = re.search(r"""extra\s*==\s*['"]([\w-]+)['"]""", line)
            packages.append(Package(match[1], match[2] or "0", version(match[1]), extra[1] if extra else ""))
    return packages


def plugins() -> Mapping[str, list[str]]:
    """Return the plugins that each distribution (name and version) provides."""
    names: dict[str, list[str]] = {}
    for entry in sorted(metadata.entry_points(group=GROUP), key=lambda entry: entry.name):
        owner = f"{entry.dist.name} {entry.dist.version}" if entry.dist else entry.value
        names.setdefault(owner, []).append(entry.name)
    return names


def installed() -> list[str]:
    """Return the lines of `sglora --version`, starting with the program's own."""
    lines = [f"{NAME} {__version__}", f"python {platform.python_version()}, {platform.system()} {platform.machine()}"]
    lines += [f"{name} {found}" for name in _SHOWN if (found := version(name))]
    return lines + [f"plugins of {owner}: {', '.join(names)}" for owner, names in plugins().items()]
