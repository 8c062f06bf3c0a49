"""The checks of backbones that count tokens: a built-in passes, and each mistake is found."""

from __future__ import annotations

import pytest
from small_clip import named, small_clip

from sglora_cli.config import RuntimeConfig
from sglora_cli.errors import PluginError
from sglora_cli.testing import BACKBONE_CHECKS, TOKEN_CHECKS, check_tokens, run_check
from sglora_starter import StarterBackbone


@pytest.fixture(scope="module")
def model():
    return StarterBackbone().load(RuntimeConfig())


class Generous(StarterBackbone):
    def token_limit(self):
        return 300


class Stingy(StarterBackbone):
    def token_limit(self):
        return 200


class AfterTheCut(StarterBackbone):
    """Counts what is left of a text."""

    def count_tokens(self, texts):
        return [min(count, 256) for count in super().count_tokens(texts)]


class FilledUp(StarterBackbone):
    """Counts a text as long as the longest beside it."""

    def count_tokens(self, texts):
        return [max(super().count_tokens(texts))] * len(texts)


class OneShort(StarterBackbone):
    def count_tokens(self, texts):
        return super().count_tokens(texts)[1:]


def test_the_starter_counts_what_it_reads(model):
    check_tokens(StarterBackbone(), model)


def test_open_clip_counts_what_it_reads():
    check_tokens(named("ViT-B-16"), small_clip())


@pytest.mark.parametrize(
    ("backbone", "check", "message"),
    [
        (Generous, "token_limit_is_what_is_read", "encode_text does not read the last of 300 tokens"),
        (Stingy, "token_limit_is_what_is_read", "encode_text reads more than 200 tokens"),
        (AfterTheCut, "tokens_are_counted", "257 words have only 256 tokens"),
        (FilledUp, "tokens_are_counted", "the count of a text depends on the other texts"),
        (OneShort, "tokens_are_counted", "count_tokens must return 4 whole number(s) of at least 0, got "),
    ],
)
def test_a_backbone_that_counts_wrongly_is_found(model, backbone, check, message):
    answers = {one.__name__: run_check(one, backbone(), model) for one in TOKEN_CHECKS}
    assert answers[check].startswith(message)
    with pytest.raises(PluginError, match=check):
        check_tokens(backbone(), model)


@pytest.mark.slow
def test_the_command_asks_those_that_count(run):
    result = run("plugins", "check", "starter")
    assert result.exit_code == 0, result.output
    assert result.stdout == "".join(f"{'ok':<7} {one.__name__}\n" for one in (*BACKBONE_CHECKS, *TOKEN_CHECKS))
