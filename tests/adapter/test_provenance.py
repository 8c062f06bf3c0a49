"""What an adapter says of itself is shown, whatever it says."""

from __future__ import annotations

import pytest
import torch
from html_page import Page

from sglora_cli.adapter.file import AdapterFile
from sglora_cli.adapter.foreign import ForeignAdapter
from sglora_cli.api import Layout, Site, read_adapter

LAYOUT = Layout((Site("q", 3, 2),), 1, 1.0)
ODD = [
    {},
    {"description": 7, "backbone": ["x"], "generator": None, "prior": [], "draw": "x", "experts": "all"},
    {"description": "<b>\x1b[2J\n", "backbone": "<b>", "experts": [["<b>\n", 10**400]], "prior": {"k": {}}},
    {"description": "x" * 10**6, "experts": [["<b>\n" * 10**5, -1.5]] * 1000},
]


@pytest.mark.parametrize("metadata", ODD, ids=["nothing", "kinds", "signs", "sizes"])
def test_an_adapter_may_say_anything_of_itself(metadata):
    one = torch.ones(1, 1, dtype=torch.float64)
    for adapter in (
        AdapterFile(LAYOUT, torch.ones(5), metadata),
        ForeignAdapter({"q": (one, one)}, "peft", metadata=metadata),
        ForeignAdapter({}, "peft", metadata=metadata),
    ):
        line = repr(adapter)
        assert line.isprintable()
        assert len(line) < 600
        assert "b" not in Page(adapter._repr_html_()).tags[3:]


def test_a_foreign_file_is_shown_with_its_base(tmp_path):
    import json

    from safetensors.torch import save_file

    state = {f"base_model.model.q.lora_{x}.weight": torch.ones(s) for x, s in (("A", (2, 5)), ("B", (4, 2)))}
    save_file(state, tmp_path / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 2, "target_modules": ["q"]}
    config["base_model_name_or_path"] = "openai/clip-vit-base-patch16"
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    adapter = read_adapter(tmp_path)
    assert repr(adapter) == (
        "ForeignAdapter(an unknown task: format peft, 1 site, 18 parameters, base 'openai/clip-vit-base-patch16')"
    )
    texts = [text.strip() for text in Page(adapter._repr_html_()).texts if text.strip()]
    assert texts == [
        *("adapter for an unknown task", "base", "'openai/clip-vit-base-patch16'", "format", "peft"),
        *("rank", "2", "parameters", "18 at 1 site"),
    ]
