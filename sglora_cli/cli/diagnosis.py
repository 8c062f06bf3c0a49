"""Checks what works on this machine, and names the command that fixes what does not.

The network is blocked during the checks. They download nothing and leave no files behind.
"""

from __future__ import annotations

import os
import platform
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from sglora_cli import __version__
from sglora_cli.cli import versions
from sglora_cli.config import RuntimeConfig
from sglora_cli.errors import SgloraError, Unavailable, UnknownName
from sglora_cli.files.escape import shell_word
from sglora_cli.generate.session import Session
from sglora_cli.network import no_network, offline
from sglora_cli.pack.library import Library
from sglora_cli.pack.pack import Pack
from sglora_cli.plugin.contracts import HasMembers, SaysAbsent
from sglora_cli.plugin.host import Host
from sglora_cli.system import paths, settings
from sglora_cli.system.cache import CACHE_KINDS, items
from sglora_cli.system.display import counted
from sglora_cli.system.hardware import free_disk, nearest_existing, pick_device
from sglora_cli.system.progress import size

OK, MISSING, BROKEN = "ok", "missing", "broken"
"""States of a finding. MISSING means absent but optional. BROKEN means that it should work and does not."""
SENTENCE = "a photo of a pug"
_LEAST_FREE = 1_000_000_000
_LARGEST = 500_000_000
"""Files of packs with more bytes than this are not hashed."""
_EXTRAS = {
    "caption": "captions by a model (`data caption`)",
    "check": "near-identical images (`data check`)",
    "lorahub": "the method lorahub",
    "ray": "builds and measurements on a Ray cluster (`--executor ray`)",
    "report": "pages and figures (`report`)",
}


@dataclass(frozen=True)
class Finding:
    """The result of one check. `mend` is the command that fixes it, or "" if there is nothing to fix."""

    area: str
    name: str
    state: str
    text: str
    mend: str = ""
    facts: dict[str, Any] = field(default_factory=dict)


def examined(host: Host) -> list[Finding]:
    """Run all checks. The last finding is the job itself, generating an adapter with the default pack.

    Errors in a check do not propagate but become findings.
    """
    parts: Sequence[tuple[str, Callable[[Host], Iterator[Finding]]]] = (
        ("program", _program),
        ("device", _devices),
        ("plugin", _plugins),
        ("backbone", _backbones),
        ("folder", _folders),
        ("setting", _settings),
        ("network", _network),
        ("pack", _packs),
        ("job", _job),
    )
    findings: list[Finding] = []
    with no_network(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for area, look in parts:
            try:
                findings += look(host)
            except Exception as error:  # e.g. of a third-party plugin or a driver; continue with the other checks
                findings.append(_broken(area, area, error))
    return findings


def works(findings: Sequence[Finding]) -> bool:
    """Return whether an adapter can be generated with the default pack."""
    return findings[-1].state == OK


def _broken(area: str, name: str, error: Exception, mend: str = "") -> Finding:
    if isinstance(error, SgloraError):
        return Finding(area, name, BROKEN, error.message, mend or error.hint)
    return Finding(area, name, BROKEN, f"{type(error).__name__}: {error}", mend)


def _program(host: Host) -> Iterator[Finding]:
    yield Finding("program", "python", OK, f"{platform.python_version()} at {sys.executable}")
    packages = versions.wanted()
    core = [package for package in packages if not package.extra]
    if wrong := [package.wrong for package in core if package.wrong]:
        yield Finding("program", "sglora", BROKEN, "; ".join(wrong), "pip install --upgrade sglora")
    else:
        torch = ", ".join(f"{package.name} {package.version}" for package in core if package.name == "torch")
        yield Finding("program", "sglora", OK, f"{__version__} with its {counted(len(core), 'package')}, {torch}")
    for extra in sorted({package.extra for package in packages} - {"", *versions.DEVELOPMENT}):
        lacks = [package.wrong for package in packages if package.extra == extra and package.wrong]
        what = _EXTRAS.get(extra, "")
        if lacks:
            mend = f'pip install "sglora[{extra}]"'
            yield Finding("program", f"extra {extra}", MISSING, f"{what}: {', '.join(lacks)}", mend)
        else:
            yield Finding("program", f"extra {extra}", OK, what)


def _devices(host: Host) -> Iterator[Finding]:
    import torch

    threads = {"threads": torch.get_num_threads(), "cores": os.cpu_count()}
    yield Finding("device", "cpu", OK, f"{threads['threads']} threads, {threads['cores']} cores", facts=threads)
    for n in range(torch.cuda.device_count()):
        total = torch.cuda.get_device_properties(n).total_memory
        yield Finding("device", f"cuda:{n}", OK, f"{torch.cuda.get_device_name(n)}, {size(total)}")
    if torch.backends.mps.is_available():
        yield Finding("device", "mps", OK, "Apple GPU, used only with --device mps")
    one = settings.current()["device"]
    try:
        yield Finding("device", "default", OK, f"{pick_device(one.value)} is used")
    except Unavailable as error:
        text = f"{error.message}; without --device the CPU is used"
        yield Finding("device", "default", MISSING, text, settings.unset("device", one))
    except SgloraError as error:
        yield _broken("device", "default", error, settings.unset("device", one))


def _plugins(host: Host) -> Iterator[Finding]:
    broken = {problem.plugin for problem in host.problems}
    fine = [name for name in host.plugins if name not in broken]
    yield Finding("plugin", "loaded", OK, ", ".join(fine))
    for problem in host.problems:
        yield Finding("plugin", problem.plugin, BROKEN, problem.reason, "sglora plugins doctor")


def _backbones(host: Host) -> Iterator[Finding]:
    for name, backbone in host.backbones.items():
        if isinstance(backbone, HasMembers):
            continue  # a family has no weights of its own
        runtime = settings.runtime(RuntimeConfig(), name)
        lacks = backbone.absent(runtime) if isinstance(backbone, SaysAbsent) else ""
        if lacks:
            mend = "sglora settings set weights FILE" if name == settings.load().backbone else ""
            yield Finding("backbone", name, MISSING, lacks, mend)
        else:
            yield Finding("backbone", name, OK, backbone.summary)


def _folders(host: Host) -> Iterator[Finding]:
    cache = paths.cache_folder()
    for name, folder in (("cache", cache), ("settings", paths.settings_file().parent)):
        try:
            with tempfile.TemporaryFile(dir=nearest_existing(folder)):
                yield Finding("folder", name, OK, str(folder))
        except OSError as error:
            text = f"cannot write to {folder}: {error.strerror}"
            yield Finding("folder", name, BROKEN, text, "export SGLORA_HOME=FOLDER with a writable FOLDER")
    used, free = sum(item.bytes for kind in CACHE_KINDS for item in items(kind)), free_disk(cache)
    few, facts = free < _LEAST_FREE, {"used_bytes": used, "free_bytes": free}
    text = f"{size(used)} in the cache, {size(free)} free on its disk"
    yield Finding("folder", "disk", BROKEN if few else OK, text, "sglora cache clean" if few else "", facts)


def _settings(host: Host) -> Iterator[Finding]:
    try:
        in_force = settings.current()
    except SgloraError as error:
        yield _broken("setting", "file", error)
        return
    for key, one in in_force.items():
        origin = settings.variable(key) if one.origin == "environment" else one.origin
        if one.origin != "default":
            yield Finding("setting", key, OK, f"{one.value or '(empty)'} (from {origin})", facts={"origin": one.origin})
    if all(one.origin == "default" for one in in_force.values()):
        yield Finding("setting", "all", OK, "defaults")
    if (home := paths.home()) is not None:
        yield Finding("setting", "home", OK, f"{home} (from SGLORA_HOME)", facts={"origin": "environment"})


def _network(host: Host) -> Iterator[Finding]:
    text = (
        "never used, SGLORA_OFFLINE is set"
        if offline()
        else "used only to fetch weights and data sets, and always reported"
    )
    yield Finding("network", "use", OK, text, facts={"offline": offline()})


def _packs(host: Host) -> Iterator[Finding]:
    for location in Library(host.recipe_folders).packs():
        mend = (
            f"sglora pack remove {shell_word(location.name)}"
            if location.origin == "built"
            else "pip install --force-reinstall sglora"
        )
        try:
            pack = Pack(location.folder)
            total = sum(path.stat().st_size for path in location.folder.rglob("*") if path.is_file())
            wrong = pack.verify() if total <= _LARGEST else []
        except SgloraError as error:
            yield _broken("pack", location.name, error, mend)
            continue
        text = f"{location.origin}, for {pack.backbone}, {size(total)}"
        if wrong:
            yield Finding("pack", location.name, BROKEN, "; ".join(wrong[:3]), mend)
        elif pack.backbone not in host.backbones and ":" not in pack.backbone:
            yield Finding(
                "pack", location.name, MISSING, f"no installed plugin provides its backbone {pack.backbone!r}"
            )
        else:
            yield Finding("pack", location.name, OK, text if total <= _LARGEST else f"{text}, hashes not checked")


def _mend(error: SgloraError) -> str:
    """Return the hint if the job fails. The bundled pack always works."""
    if isinstance(error, UnknownName):  # an unknown pack or generator comes from a setting
        for key in ("pack", "generator"):
            one = settings.current()[key]
            if one.origin != "default" and repr(one.value) in error.message:
                return settings.unset(key, one)
    return error.hint or f'sglora generate "{SENTENCE}" --pack starter --device cpu'


def _job(host: Host) -> Iterator[Finding]:
    try:
        session = Session.open(host=host)
        session.generate(SENTENCE)
    except SgloraError as error:
        yield _broken("job", "generate", error, _mend(error))
        return
    text = f"generated an adapter with pack {session.pack.name} ({session.reason})"
    yield Finding("job", "generate", OK, text, facts={"pack": session.pack.name, "generator": session.generator.name})
