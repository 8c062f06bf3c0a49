"""Check that an adapter or a pack was made for a model's weights."""

from __future__ import annotations

from sglora_cli.errors import Mismatch
from sglora_cli.plugin.contracts import KnowsEarlier, Model


def check_fingerprint(model: Model, fingerprint: str, made: str, remedy: str) -> None:
    """Raise Mismatch unless `fingerprint` is the model's.

    made: the start of the message, such as "the adapter was made for a backbone".  remedy: the hint.
    If the model recognises the weights of an earlier version, the error names it.
    """
    if fingerprint == model.fingerprint:
        return
    message = f"{made} with fingerprint {fingerprint or 'unknown'}, this one has {model.fingerprint}"
    known = model.earlier(fingerprint) if isinstance(model, KnowsEarlier) else None
    if known is None:
        raise Mismatch(message, remedy)
    raise Mismatch(f"{message}. That was {known}. The backbone has been retrained since", remedy)
