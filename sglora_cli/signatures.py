"""Who made a file: a signature of OpenSSH (`ssh-keygen -Y`), checked before the file is opened as anything else.

A signature is made for one namespace, so one made for another purpose is worth nothing here. Who may sign stands in
an allowed-signers file (ssh-keygen(1)) that the user keeps: nothing that came with the file is trusted.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from sglora_cli.errors import BadFile, Unavailable

NAMESPACE = "sglora"
SUFFIX = ".sig"
_SIGNATURE_LIMIT = 1 << 16
"""Bytes of a signature; the largest keys need a few thousand."""


def signer_of(path: Path, signature: Path, signers: Path) -> str:
    """Who, of those in the file `signers`, signed the file at `path`.

    Raises BadFile if nobody did or a file is missing, Unavailable if ssh-keygen is not installed.
    """
    for file in (path, signature, signers):
        if not file.is_file():
            raise BadFile(f"{file} is missing or no file, so nothing says who signed {path}", "nothing was imported")
    if signature.stat().st_size > _SIGNATURE_LIMIT:
        raise BadFile(f"{signature} is no signature: it has {signature.stat().st_size} bytes")
    found = _keygen(path, "find-principals", "-s", str(signature), "-f", str(signers))
    if found.returncode:
        hint = f"make sure whose key it is before you add it to {signers}"
        raise BadFile(f"{signature} is not by anybody in {signers}: {_reason(found)}", hint)
    who = found.stdout.split("\n")[0]
    given = ("-s", str(signature), "-f", str(signers), "-I", who, "-n", NAMESPACE)
    verified = _keygen(path, "verify", *given)
    if verified.returncode:
        raise BadFile(f"{path} is not what {who} signed: {_reason(verified)}", "fetch the file and its signature again")
    return who


def _keygen(path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run ssh-keygen on the content of `path`."""
    program = shutil.which("ssh-keygen")
    if program is None:
        raise Unavailable("ssh-keygen is not installed, so no signature can be checked", "install OpenSSH's client")
    with path.open("rb") as content:
        command = [program, "-Y", *arguments]
        return subprocess.run(command, stdin=content, capture_output=True, text=True, errors="replace", check=False)


def _reason(answer: subprocess.CompletedProcess[str]) -> str:
    """The first thing that ssh-keygen complained about."""
    return (answer.stderr or answer.stdout).strip().split("\n")[0].strip().rstrip(".") or "ssh-keygen refused it"
