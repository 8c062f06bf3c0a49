"""The starter backbone against transformers and timm, and its own promises."""

from __future__ import annotations

import shutil
import subprocess
import sys

import pytest
import torch
from flops import shared_and_own

from sglora_cli.adapter.file import save_adapter
from sglora_cli.config import RuntimeConfig
from sglora_cli.errors import Mismatch, Unavailable
from sglora_cli.lora.layout import Layout
from sglora_cli.pack.pack import Pack
from sglora_cli.plugin.values import TaskTensors


@pytest.fixture(scope="module")
def model():
    from sglora_starter import StarterBackbone

    return StarterBackbone().load(RuntimeConfig())


def photo(colour: tuple[int, int, int]):
    from PIL import Image

    return (
        Image.effect_noise((320, 240), 40).convert("RGB")
        if colour == (0, 0, 0)
        else Image.new("RGB", (320, 240), colour)
    )


def test_sentences_are_those_of_transformers(model):
    """In a process of its own: transformers warns about things that are not ours."""
    code = """
import warnings; warnings.simplefilter("ignore")
import torch
from transformers import BertModel, BertTokenizerFast
from sglora_starter.text import SentenceEncoder, folder
texts = ["a photo of a pug", "The sunflower's dark centre fills the frame, petals like flames.", "x"]
batch = BertTokenizerFast.from_pretrained(folder())(texts, padding=True, return_tensors="pt")
with torch.no_grad():
    hidden = BertModel.from_pretrained(folder()).eval()(**batch).last_hidden_state
mask = batch["attention_mask"][..., None]
expected = torch.nn.functional.normalize((hidden * mask).sum(1) / mask.sum(1), dim=-1)
gap = (SentenceEncoder.pretrained()(texts) - expected).abs().max()
assert gap < 1e-5, gap
"""
    pytest.importorskip("transformers")
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_stem_is_the_pretrained_network(model):
    """The package's weights are loaded: a fresh network's running variances are all alike."""
    stem = model.convolutions
    assert float(stem.body.bn1.running_var.std()) > 0.01
    assert model.stem([photo((200, 40, 40)), photo((0, 0, 0))]).shape == (2, 50, 192)


def test_a_sentence_finds_its_colour(model):
    images = [photo((220, 20, 20)), photo((20, 40, 220))]
    texts = model.encode_text(["a red flower against a red background", "a blue flower against a blue background"])
    scores = texts @ model.encode_image(model.stem(images)).T
    assert scores.argmax(dim=1).tolist() == [0, 1]


def test_many_adapters_at_once_are_one_after_the_other(model):
    layout = Layout(tuple(model.sites), 2, 2.0)
    adapters = 0.1 * torch.randn(3, layout.size, generator=torch.Generator().manual_seed(0))
    stem = torch.randn(4, 50, 192, generator=torch.Generator().manual_seed(1)).half()
    together = model.encode_image(stem, layout, adapters)
    for t in range(3):
        assert torch.allclose(together[t], model.encode_image(stem, layout, adapters[t : t + 1])[0], atol=1e-5)
    assert not torch.allclose(together[0], together[1], atol=1e-2)


def test_the_fingerprint_is_of_the_weights_that_were_loaded(model, tmp_path):
    """The file is replaced after it was loaded, and again before the fingerprint is asked for."""
    from safetensors.torch import load_file, save_file

    from sglora_starter import WEIGHTS, StarterBackbone

    path = tmp_path / "w.safetensors"
    shutil.copy(WEIGHTS, path)
    loaded = StarterBackbone().load(RuntimeConfig(weights=str(path)))
    other = {name: tensor * 1.5 for name, tensor in load_file(path).items()}
    save_file(other, tmp_path / "w2")
    path.write_bytes((tmp_path / "w2").read_bytes())  # in place: what is mapped would change, too
    assert loaded.fingerprint == model.fingerprint
    assert torch.equal(loaded.tower.embed.weight, model.tower.embed.weight)
    again = StarterBackbone().load(RuntimeConfig(weights=str(path)))
    assert again.fingerprint != model.fingerprint
    assert torch.equal(again.tower.embed.weight, other["embed.weight"].float())


def test_an_adapter_is_the_same_as_merged_weights(model):
    """The slow, obvious way: W + (alpha / r) B A written into the weights."""
    import copy

    layout = Layout(tuple(model.sites), 2, 3.0)
    flat = 0.1 * torch.randn(1, layout.size, generator=torch.Generator().manual_seed(0))
    stem = torch.randn(2, 50, 192, generator=torch.Generator().manual_seed(1)).half()
    tower = copy.deepcopy(model.tower)
    for name, (b, a) in layout.split(flat[0]).items():
        _, _, block, letter = name.split(".")
        getattr(tower.blocks[int(block)].attention, letter).weight.data += layout.scaling * b @ a
    assert torch.allclose(model.encode_image(stem, layout, flat)[0], tower.images(stem.float()), atol=1e-5)


def test_a_sentence_too_long_for_the_encoder_is_refused(model):
    with pytest.raises(Mismatch, match="tokens, the limit is 256"):
        model.check_text("very " * 400 + "long")


def test_another_device_is_refused():
    from sglora_starter import StarterBackbone

    with pytest.raises(Unavailable, match="runs on the CPU, not on 'cuda'"):
        StarterBackbone().load(RuntimeConfig(device="cuda"))


STARTER_1 = (
    "with fingerprint 1e4884b75d0903ed, this one has {own}. That was starter 1, the starter backbone before "
    "it was trained on Flickr8k. The backbone has been retrained since"
)


def test_adapters_of_starter_1_are_refused_by_name(run, model, tmp_path):
    """Whoever reads them: `try` and `export` our own files, `import` those in PEFT's format."""
    path = tmp_path / "old.safetensors"
    layout = Layout(tuple(model.sites), 2, 2.0)
    flat = 0.1 * torch.randn(layout.size, generator=torch.Generator().manual_seed(0))
    save_adapter(path, layout, flat, {"backbone": "starter", "fingerprint": "1e4884b75d0903ed"})
    photo((200, 40, 40)).save(tmp_path / "a.png")
    for call in (
        ("try", path, "--images", tmp_path, "--text", "a red wall"),
        ("export", path, "--format", "peft", "-o", tmp_path / "x"),
        ("import", path, "--backbone", "starter", "-o", tmp_path / "y.safetensors"),
    ):
        result = run(*call)
        assert result.exit_code == 5, result.output
        assert STARTER_1.format(own=model.fingerprint) in result.stderr


def test_a_pack_of_starter_1_is_refused_by_name(model):
    class Old:
        name, backbone, fingerprint = "mine", "starter", "1e4884b75d0903ed"

    with pytest.raises(Mismatch) as caught:
        Pack.check_model(Old(), model)
    assert str(caught.value).endswith(STARTER_1.format(own=model.fingerprint))
    assert caught.value.hint == "build the pack again, or import one of this backbone"


@pytest.mark.data
def test_nothing_of_a_task_reaches_the_backbone(data):
    import json

    from sglora_starter.corpus import MOVED, read

    splits = json.loads((data / "splits.json").read_text())
    tasks = {
        name.lower()
        for family in splits.values()
        for role in ("expert", "training", "unseen")
        for name in family.get(role, [])
    }
    groups = {photo.group.lower() for photo in read(data)}
    assert groups & tasks == {name.lower() for name in MOVED}
    assert not {name.lower() for name in MOVED} & {name.lower() for name in splits["birds"]["unseen"]}


def test_stems_may_be_kept_in_half_precision(model):
    task = TaskTensors("x", model.stem([photo((1, 2, 3)), photo((0, 0, 0))]), torch.zeros(2, 256), (0, 1))
    assert task.stem_N.dtype == torch.half


def test_adapters_of_the_same_photos_share_the_frozen_products_of_the_first_block(model):
    layout, stem_N = Layout(model.sites, 2, 2.0), torch.randn(2, 50, 192, generator=torch.Generator().manual_seed(0))
    flat_TP = layout.initial(0) + 0.05 * torch.randn(3, layout.size, generator=torch.Generator().manual_seed(1))
    (shared_TND, fewer), (own_TND, all_of_them) = shared_and_own(model, stem_N, layout, flat_TP)
    assert torch.allclose(shared_TND, own_TND, atol=1e-6)
    assert all_of_them - fewer == (3 - 1) * 2 * 50 * 2 * 3 * 192**2
