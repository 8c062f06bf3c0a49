"""What is said of an adapter or a pack whose backbone has other weights now."""

from __future__ import annotations

import pytest

from sglora_cli.errors import Mismatch
from sglora_cli.plugin.fingerprint import check_fingerprint


class Plain:
    fingerprint = "b2"


class Renewed(Plain):
    def earlier(self, fingerprint):
        return {"a1": "tiny 1, the backbone of sglora-tiny up to 1.4"}.get(fingerprint)


def refused(model, fingerprint: str) -> tuple[str, str]:
    with pytest.raises(Mismatch) as caught:
        check_fingerprint(model, fingerprint, "the adapter was made for a backbone", "generate it again")
    return str(caught.value), caught.value.hint


@pytest.mark.parametrize("model", [Plain(), Renewed()])
def test_the_weights_it_was_made_for_are_accepted(model):
    check_fingerprint(model, "b2", "x", "y")


@pytest.mark.parametrize(("model", "fingerprint"), [(Plain(), "a1"), (Renewed(), "c3")])
def test_weights_that_nobody_knows_are_named_by_their_fingerprint(model, fingerprint):
    message, hint = refused(model, fingerprint)
    assert message == f"the adapter was made for a backbone with fingerprint {fingerprint}, this one has b2"
    assert hint == "generate it again"


def test_weights_of_an_earlier_version_are_named():
    message, hint = refused(Renewed(), "a1")
    assert message == (
        "the adapter was made for a backbone with fingerprint a1, this one has b2. That was tiny 1, the backbone of "
        "sglora-tiny up to 1.4. The backbone has been retrained since"
    )
    assert hint == "generate it again"


def test_an_adapter_without_a_fingerprint_is_of_unknown_weights():
    assert refused(Renewed(), "")[0].startswith("the adapter was made for a backbone with fingerprint unknown, ")
