"""A generator that a pack was not built with."""

from __future__ import annotations


def test_a_generator_that_the_pack_has_not_trained_is_named_with_what_trains_it(run, toy_pack):
    result = run("generate", "a mug", "--generator", "cvae-own")
    assert (result.exit_code, result.stdout) == (3, "")
    assert result.stderr.splitlines()[-2:] == [
        "error: pack 'toys' has no trained generator named 'cvae-own'",
        "hint: build a pack whose recipe has [generators.cvae-own], or use a trained generator of this pack: cvae",
    ]
