"""Whether an adapter or a pack was made for the weights that a model has."""

from __future__ import annotations

from sglora_cli.errors import Mismatch
from sglora_cli.plugin.contracts import KnowsEarlier, Model


def check_fingerprint(model: Model, fingerprint: str, made: str, remedy: str) -> None:
    """Raises Mismatch unless `fingerprint` is the model's.

    made: what was made for what, as "the adapter was made for a backbone".  remedy: what to do about it.
    Where the model knows the weights from an earlier version, the error says which.
    """
    if fingerprint == model.fingerprint:
        return
    message = f"{made} with fingerprint {fingerprint or 'unknown'}, this one has {model.fingerprint}"
    known = model.earlier(fingerprint) if isinstance(model, KnowsEarlier) else None
    if known is None:
        raise Mismatch(message, remedy)
    raise Mismatch(f"{message}: that was {known}, and the backbone has been trained anew since", remedy)
