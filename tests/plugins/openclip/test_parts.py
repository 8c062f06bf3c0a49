"""Parts of open_clip that are used without the rest of it: the same as when open_clip is imported."""

from __future__ import annotations

import json
import random
import subprocess
import sys

import open_clip
import pytest

from sglora_cli.errors import UnknownName
from sglora_openclip import hub, parts


@pytest.mark.slow
def test_tokens_are_open_clips_without_the_rest_of_it():
    """Its tokenizer alone, in a process that does not import open_clip, cuts any text as open_clip does."""
    rng = random.Random(0)
    anything = [
        "".join(chr(rng.choice((rng.randrange(1, 0xD800), rng.randrange(32, 127)))) for _ in range(30))
        for _ in range(200)
    ]
    texts = [
        *anything,
        " \t\n ",
        "I'LL they've  DON'T",
        "1234 5.6%",
        "caf\u00e9 cafe\u0301 \u00fcber",
        "&amp;lt;b&amp;gt; &eacute;",
        "schÃ¶n â€œquotedâ€\x9d",
        "\U0001f436\U0001f469\u200d\U0001f4bb \u2764\ufe0f",
        "\u72d7 \u72ac\u306e\u5199\u771f",
        "a\x00b\x07c\x7f",
        "<start_of_text> x <END_OF_TEXT>",
        "x" * 5000,
        "\ufeff\u202eabc",
        "\ufb01ne \u2163 \uff21",
        "___ --- ...",
    ]
    code = (
        "import json, sys\nfrom sglora_openclip import hub\n"
        "tokenizer = hub.fetch_tokenizer('ViT-B-16-quickgelu')\n"
        "assert 'open_clip' not in sys.modules\n"
        "print(json.dumps(tokenizer(json.load(sys.stdin)).tolist()))"
    )
    ours = subprocess.run(
        [sys.executable, "-c", code], input=json.dumps(texts), capture_output=True, text=True, check=True
    )
    assert json.loads(ours.stdout) == open_clip.get_tokenizer("ViT-B-16-quickgelu")(texts).tolist()


def test_every_architecture_has_the_tokenizer_that_open_clip_gives_it(monkeypatch):
    from open_clip import factory, tokenizer

    for module, name in ((factory, "HFTokenizer"), (factory, "SigLipTokenizer")):
        monkeypatch.setattr(module, name, lambda *_, **__: "of a hub")
    for module in (factory, tokenizer):
        monkeypatch.setattr(module, "SimpleTokenizer", lambda **settings: settings)
    found = {name: hub.fetch_tokenizer(name) for name in open_clip.list_models()}
    assert found == {name: open_clip.get_tokenizer(name) for name in found}
    assert found["ViT-B-16"] == {"context_length": 77}
    assert found["ViT-B-16-SigLIP"] == "of a hub"


def test_configurations_are_open_clips(monkeypatch):
    theirs = {name: open_clip.get_model_config(name) for name in open_clip.list_models() if name.startswith("ViT")}
    monkeypatch.delitem(sys.modules, "open_clip")  # as if it had not been imported
    assert {name: parts.configuration(name) for name in theirs} == theirs
    with pytest.raises(UnknownName, match="no architecture in open_clip named 'ViT-B-61'") as caught:
        parts.configuration("ViT-B-61")
    assert "ViT-B-16" in caught.value.hint
