"""Captions by Qwen2-VL: the code path, on a model with random weights."""

from __future__ import annotations

import json

import pytest
from PIL import Image
from trees import pets_tree

from sglora_cli.config import RuntimeConfig
from sglora_cli.errors import BadFile, Unavailable

PROMPT = "Input: A photo of pug. Output:"


def qwen():
    import sglora_qwen

    return sglora_qwen.sglora_captioners()[0]


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    pytest.importorskip("transformers")
    from tiny_qwen import save_tiny_qwen

    return save_tiny_qwen(tmp_path_factory.mktemp("qwen"))


@pytest.fixture(scope="module")
def model(weights):
    return qwen().load(RuntimeConfig(device="cpu", weights=str(weights)))


def photo(*colour, size=(60, 40)):
    return Image.new("RGB", size, colour)


def test_the_same_question_has_the_same_answers_whatever_was_asked_before(model):
    first = model.write(photo(200, 30, 30), PROMPT, 3, 7)
    assert len(set(first)) == 3
    model.write(photo(0, 200, 30), "Input: A photo of cat. Output:", 2, 9)
    assert model.write(photo(200, 30, 30), PROMPT, 3, 7) == first


def test_answers_depend_on_seed_photo_and_prompt(model):
    first = model.write(photo(200, 30, 30), PROMPT, 1, 7)
    assert model.write(photo(200, 30, 30), PROMPT, 1, 8) != first
    assert model.write(photo(30, 30, 200), PROMPT, 1, 7) != first
    assert model.write(photo(200, 30, 30), PROMPT.replace("pug", "owl"), 1, 7) != first


def test_the_callers_random_numbers_stay_its_own(model):
    import torch

    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    model.write(photo(200, 30, 30), PROMPT, 1, 7)
    assert torch.equal(torch.rand(3), expected)


def test_a_large_photo_is_shrunk_and_stays_as_it_was(model, monkeypatch):
    seen = []
    real = model.processor.image_processor.__class__.__call__
    monkeypatch.setattr(
        model.processor.image_processor.__class__,
        "__call__",
        lambda self, images, **how: seen.extend(i.size for i in images) or real(self, images, **how),
    )
    image = photo(1, 2, 3, size=(3000, 1500))
    model.write(image, PROMPT, 1, 0)
    assert image.size == (3000, 1500)
    assert seen == [(1024, 512)]


def test_an_answer_that_the_limit_cut_off_ends_with_its_last_sentence(model):
    import sglora_qwen

    end = model.model.generation_config.eos_token_id
    full = [end + 1] * sglora_qwen.MOST_TOKENS
    assert model._ended("A cat. It has a", full) == "A cat."
    assert model._ended("A cat that has a", full) == "A cat that has a"
    assert model._ended("A cat. It has a", [*full[1:], end]) == "A cat. It has a"
    assert model._ended("A cat. It has a", full[1:]) == "A cat. It has a"


def test_pets_are_captioned_through_the_command(run, weights, tmp_path):
    pets_tree(tmp_path, photos=2)
    (tmp_path / "captions.jsonl").unlink()
    command = ["data", "caption", "pets", "--path", tmp_path, "--weights", weights, "--device", "cpu", "--captions", 2]
    limited = run(*command, "--limit", 2, "--fewest-words", 1)
    assert limited.exit_code == 0, limited.output
    result = run(*command, "--fewest-words", 1)
    assert result.exit_code == 0, result.output
    resumed = (tmp_path / "captions.jsonl").read_bytes()
    rows = [json.loads(line) for line in resumed.splitlines()]
    assert [row["image"] for row in rows] == [
        "images/Abyssinian_1.jpg",
        "images/american_bulldog_1.jpg",
        "images/Abyssinian_2.jpg",
        "images/american_bulldog_2.jpg",
    ]
    assert [row["split"] for row in rows] == ["train", "train", "test", "test"]
    (tmp_path / "captions.jsonl").unlink()
    assert run(*command, "--fewest-words", 1, "--json").stderr == ""
    assert (tmp_path / "captions.jsonl").read_bytes() == resumed


def test_without_weights_nothing_is_asked_of_a_network(monkeypatch, tmp_path):
    hub = pytest.importorskip("huggingface_hub")
    pytest.importorskip("transformers")
    asked = []

    def snapshot(name, local_files_only=False, **_):
        asked.append(local_files_only)
        raise OSError("not there")

    monkeypatch.setattr(hub, "snapshot_download", snapshot)
    monkeypatch.setenv("SGLORA_OFFLINE", "1")
    with pytest.raises(Unavailable) as error:
        qwen().load(RuntimeConfig(device="cpu"))
    assert asked == [True]
    assert error.value.message == (
        "weights Qwen/Qwen2-VL-7B-Instruct are not in the Hugging Face cache and cannot be downloaded: "
        "SGLORA_OFFLINE is set"
    )


def test_weights_are_fetched_from_the_hub_only_after_saying_so(monkeypatch, weights):
    hub = pytest.importorskip("huggingface_hub")
    asked = []

    def snapshot(name, local_files_only=False, **_):
        asked.append((name, local_files_only))
        if local_files_only:
            raise OSError("not there")
        return str(weights)

    monkeypatch.setattr(hub, "snapshot_download", snapshot)
    monkeypatch.setattr("sglora_qwen.hub_unreachable", lambda: "")
    name = "Qwen/Qwen2-VL-7B-Instruct"
    with pytest.warns(UserWarning, match=f"{name} is not in the Hugging Face cache, downloading it"):
        qwen().load(RuntimeConfig(device="cpu"))
    assert asked == [(name, True), (name, False)]


def test_half_a_download_in_the_cache_is_fetched_on(monkeypatch, weights, tmp_path):
    hub = pytest.importorskip("huggingface_hub")
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "1.safetensors").write_bytes(b"")
    table = {"weight_map": {"a": "1.safetensors", "b": "2.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(table))
    folders = [tmp_path, weights]
    monkeypatch.setattr(hub, "snapshot_download", lambda *_, **__: str(folders.pop(0)))
    monkeypatch.setattr("sglora_qwen.hub_unreachable", lambda: "")
    with pytest.warns(UserWarning, match="downloading it"):
        qwen().load(RuntimeConfig(device="cpu"))
    assert folders == []


def test_a_folder_without_a_model_is_named(tmp_path):
    pytest.importorskip("transformers")
    with pytest.raises(Unavailable, match=r"contains no config.json, so it is not a model"):
        qwen().load(RuntimeConfig(device="cpu", weights=str(tmp_path)))
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(BadFile, match="is not a complete Qwen2-VL model: "):
        qwen().load(RuntimeConfig(device="cpu", weights=str(tmp_path)))


def test_without_transformers_the_hint_says_what_to_install(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "transformers", None)
    with pytest.raises(Unavailable) as error:
        qwen().load(RuntimeConfig(device="cpu"))
    assert error.value.hint == 'pip install "sglora[caption]"'


@pytest.mark.parametrize(("place", "name"), [(0, "7B"), (1, "2B")])
def test_parameters_are_those_of_the_architecture(place, name):
    """Counted in transformers' own model, from the configuration that the hub has."""
    transformers = pytest.importorskip("transformers")
    import torch

    import sglora_qwen

    one = sglora_qwen.sglora_captioners()[place]
    text = (
        {"hidden_size": 3584, "intermediate_size": 18944, "num_attention_heads": 28, "num_key_value_heads": 4}
        | {"vocab_size": 152064}
        if name == "7B"
        else {"hidden_size": 1536, "intermediate_size": 8960, "num_attention_heads": 12, "num_key_value_heads": 2}
        | {"vocab_size": 151936}
    )
    config = transformers.Qwen2VLConfig(
        text_config=text
        | {"num_hidden_layers": 28, "rope_scaling": {"type": "mrope", "mrope_section": [16, 24, 24]}}
        | {"tie_word_embeddings": name == "2B"},
        vision_config={"depth": 32, "embed_dim": 1280, "num_heads": 16, "hidden_size": text["hidden_size"]},
        tie_word_embeddings=name == "2B",
    )
    with torch.device("meta"):
        model = transformers.Qwen2VLForConditionalGeneration(config)
    sizes = {key: p.numel() for key, p in model.named_parameters()}
    assert sum(sizes.values()) == one.parameters
    assert sum(n for key, n in sizes.items() if "visual" in key) == one.vision_parameters
    assert sum(n for key, n in sizes.items() if "embed_tokens" in key or "lm_head" in key) == one.embedding_parameters


def test_the_cost_is_said_without_loading_or_fetching(monkeypatch, weights):
    hub = pytest.importorskip("huggingface_hub")
    asked = []

    def snapshot(name, local_files_only=False, **_):
        asked.append(local_files_only)
        raise OSError("not there")

    monkeypatch.setattr(hub, "snapshot_download", snapshot)
    monkeypatch.setattr("sglora_qwen.hub_unreachable", lambda: "")
    cost = qwen().caption_cost(RuntimeConfig(), 1024 * 768, 4)
    assert asked == [True]
    assert (cost.model, cost.lacks) == ("Qwen/Qwen2-VL-7B-Instruct", "")
    assert cost.download_bytes == pytest.approx(16.6e9, rel=0.01)
    monkeypatch.setattr("sglora_qwen.hub_unreachable", lambda: "SGLORA_OFFLINE is set")
    offline = qwen().caption_cost(RuntimeConfig(), 1024 * 768, 4)
    assert offline.lacks == "its weights cannot be downloaded: SGLORA_OFFLINE is set"
    monkeypatch.setattr("sglora_qwen.find_spec", lambda name: None)
    assert qwen().caption_cost(RuntimeConfig(), 1, 1).lacks == 'transformers: pip install "sglora[caption]"'


def test_the_cost_of_weights_in_a_folder_is_that_of_their_files(weights, model):
    cost = qwen().caption_cost(RuntimeConfig(weights=str(weights)), 1024 * 768, 4)
    assert (cost.model, cost.download_bytes) == (str(weights), 0)
    assert cost.parameters == sum(p.numel() for p in model.model.parameters())
