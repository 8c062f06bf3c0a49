"""What lies beside weights is read, all of it, and believed only where nothing contradicts it."""

from __future__ import annotations

import json
import warnings

import open_clip
import pytest
import torch
from open_clip.transform import PreprocessCfg, image_transform_v2

from sglora_cli.errors import BadFile, Mismatch, SgloraWarning, UnknownName
from sglora_cli.testing import images
from sglora_openclip.agreement import check_architecture, preprocessing, tag_config
from sglora_openclip.beside import Beside, read_beside

OPENAI, HALF = (0.48145466, 0.4578275, 0.40821073), (0.5, 0.5, 0.5)
OPENAI_STD = (0.26862954, 0.26130258, 0.27577711)
MODEL = {
    "embed_dim": 768,
    "vision_cfg": {"width": 1024, "layers": 24, "patch_size": 14},
    "text_cfg": {"width": 768, "heads": 12},
}
PHOTOS = {"mean": list(HALF), "std": list(HALF)}
CLIP = {"model_type": "clip", "vision_config": {"hidden_act": "gelu"}, "text_config": {"hidden_act": "gelu"}}
PROCESSOR = {"image_processor_type": "CLIPImageProcessor", "image_mean": list(HALF), "image_std": list(HALF)}


@pytest.fixture
def folder(tmp_path):
    """Write files beside weights: `folder(config={...}, preprocessor_config={...})`."""

    def write(**files):
        for name, content in files.items():
            (tmp_path / f"{name}.json").write_text(content if isinstance(content, str) else json.dumps(content))
        return tmp_path

    return write


def prepared(folder, architecture="ViT-L-14", tag=""):
    config = preprocessing(architecture, tag, folder / "w.pt", read_beside(folder))
    return tuple(config["mean"]), config["resize_mode"]


def test_photos_are_prepared_as_the_tag_wants_it(tmp_path):
    assert prepared(tmp_path, "ViT-B-16-quickgelu", "openai") == (OPENAI, "shortest")
    assert prepared(tmp_path, "ViT-B-16-SigLIP") == (HALF, "squash")  # all its tags agree
    assert prepared(tmp_path, "ViT-L-14", "laion2b_s32b_b82k") == (HALF, "shortest")
    assert prepared(tmp_path, "ViT-L-14-quickgelu", "openai") == (OPENAI, "shortest")


def test_where_nothing_says_it_and_tags_disagree_the_user_is_told(tmp_path):
    with pytest.warns(SgloraWarning, match="nor a file beside it says how to prepare photos"):
        assert prepared(tmp_path) == (OPENAI, "shortest")
    with pytest.raises(UnknownName, match="no weights of ViT-L-14 in open_clip named 'laion'"):
        prepared(tmp_path, "ViT-L-14", "laion")


FILES = {
    "open_clip_config": {"model_cfg": MODEL, "preprocess_cfg": PHOTOS},
    "config": CLIP,
    "preprocessor_config": PROCESSOR,
}


@pytest.mark.parametrize(
    "names", [{"open_clip_config"}, {"preprocessor_config"}, {*FILES} - {"open_clip_config"}, {*FILES}]
)
def test_every_file_is_read_whatever_else_is_there(folder, names):
    """Also what transformers says of photos, alone or beside open_clip's file; nobody is told what is not true."""
    place = folder(**{name: FILES[name] for name in names})
    assert prepared(place) == (HALF, "shortest")
    quick = read_beside(place).quick_gelu
    assert (quick and quick.value) == (False if names & {"config", "open_clip_config"} else None)


def test_files_about_something_else_say_nothing(folder):
    place = folder(
        config={"model_type": "llama", "hidden_act": "silu", "vision_config": {"hidden_act": "quick_gelu"}},
        preprocessor_config={"feature_extractor_type": "Wav2Vec2FeatureExtractor", "do_normalize": True},
        open_clip_config=[1, 2],
        other={"model_cfg": {"quick_gelu": True}},
    )
    assert read_beside(place) == Beside()


def transformed(table, size=224):
    """Pixels as open_clip prepares them, from what we make of transformers' table."""
    from sglora_openclip.processor import prepared as in_open_clips_words

    config = {key: said.value for key, said in in_open_clips_words(table, "x").items()}
    transform = image_transform_v2(PreprocessCfg(**{"size": size, **config}), is_train=False)
    return torch.stack([transform(image) for image in images()])


@pytest.mark.oracle
@pytest.mark.parametrize(
    "table",
    [
        {},
        {"size": 224, "crop_size": 224, "resample": 3},
        {"size": {"shortest_edge": 64}, "crop_size": {"height": 64, "width": 64}, "resample": 2},
        {"size": {"height": 48, "width": 80}, "do_center_crop": False},
        {"size": {"height": 48, "width": 48}, "crop_size": 48},
        {"image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6]},
        {"do_normalize": False},
        {"rescale_factor": 1 / 127.5, "image_mean": [1.0, 1.0, 1.0], "image_std": [1.0, 1.0, 1.0]},
        {"do_rescale": False, "image_mean": [127.0, 127.0, 127.0], "image_std": [128.0, 128.0, 128.0]},
    ],
)
def test_pixels_are_those_of_transformers(table):
    transformers = pytest.importorskip("transformers")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = transformers.CLIPImageProcessor(**table)(images(), return_tensors="np")["pixel_values"]
    gap = (torch.from_numpy(theirs) - transformed({"image_processor_type": "CLIPImageProcessor", **table})).abs()
    assert float(gap.max()) < 0.06  # of numbers up to 4.7: a pixel is rounded once more, here or there
    assert float(gap.mean()) < 0.01


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ({"size": 256, "crop_size": 224}, "size is 256, with crop_size 224"),
        ({"do_center_crop": False}, r"size is {'shortest_edge': 224}, with no crop"),
        ({"size": {"longest_edge": 224}}, r"size is {'longest_edge': 224}, with crop_size 224"),
        ({"do_resize": False}, "do_resize is false"),
        ({"resample": 1}, "resample is 1"),
    ],
)
def test_what_open_clip_cannot_do_is_refused(folder, table, words):
    place = folder(preprocessor_config={**PROCESSOR, **table})
    with pytest.raises(Mismatch, match=rf"preprocessor_config.json, {words}, which open_clip does not support"):
        prepared(place)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("open_clip_config", {"model_cfg": 3}, "model_cfg must be a table, got 3"),
        (
            "open_clip_config",
            {"model_cfg": {"quick_gelu": "yes"}},
            "model_cfg.quick_gelu must be true or false, got 'yes'",
        ),
        ("config", {"vision_config": {"hidden_act": 3}}, "vision_config.hidden_act must be the name of an activation"),
        *(
            (
                "open_clip_config",
                {"model_cfg": {}, "preprocess_cfg": {key: value}},
                f"preprocess_cfg.{key} must be {what}",
            )
            for key, value, what in (
                ("mean", "0.5", "three numbers, got '0.5'"),
                ("mean", [0.5, 0.5], "three numbers, got"),
                ("mean", [0.5, 0.5, "nan"], "three numbers, got"),
                ("mean", [True, False, True], "three numbers, got"),
                ("std", [0.5, 0.5, 0.0], "three numbers above 0, got"),
                ("interpolation", "cubic", "one of bicubic, bilinear, random, got 'cubic'"),
                ("interpolation", ["bicubic"], "one of bicubic"),
                ("resize_mode", 3, "one of shortest, longest, squash, got 3"),
                ("size", 0, "a number of pixels, or height and width, got 0"),
                ("size", [224, "224"], "a number of pixels"),
                ("mode", "L", "RGB, got 'L'"),
                ("fill_color", 256, "a whole number from 0 to 255, got 256"),
            )
        ),
        *(
            ("preprocessor_config", {**PROCESSOR, key: value}, f"{key} must be {what}")
            for key, value, what in (
                ("image_mean", {"r": 1}, "three numbers, got"),
                ("image_std", [1, 2, -3], "three numbers above 0, got"),
                ("resample", 9, "one of Pillow's numbers from 0 to 5, got 9"),
                ("rescale_factor", 0, "a number above 0, got 0"),
                ("do_rescale", "no", "true or false, got 'no'"),
                ("size", {"height": 224}, "a number of pixels, or a table of them"),
                ("crop_size", "224", "a number of pixels, or a table of them, got '224'"),
            )
        ),
        ("preprocessor_config", {"image_processor_type": 3}, "the type of the processor must be a string, got 3"),
        ("config", "{", "not JSON"),
    ],
)
def test_a_value_that_cannot_be_meant_is_named_with_its_file_and_key(folder, name, content, message):
    with pytest.raises(BadFile) as caught:
        read_beside(folder(**{name: content}))
    assert f"{name}.json" in caught.value.message
    assert message in caught.value.message


def test_what_open_clip_does_not_know_is_said_to_be_left_out(folder):
    place = folder(
        open_clip_config={"model_cfg": {}, "preprocess_cfg": {**PHOTOS, "crop_pct": 0.9, "interpolation": None}}
    )
    with pytest.warns(SgloraWarning, match=r"preprocess_cfg.crop_pct is unknown to open_clip and is ignored"):
        assert set(read_beside(place).preprocess) == {"mean", "std"}


@pytest.mark.parametrize(
    ("files", "said"),
    [
        (
            {**FILES, "config": {**CLIP, "vision_config": {}, "text_config": {}}},
            [
                "open_clip_config.json, model_cfg.quick_gelu is False",
                "config.json, vision_config.hidden_act is quick_gelu",
            ],
        ),
        (
            {"config": {**CLIP, "text_config": {"hidden_act": "quick_gelu"}}},
            ["vision_config.hidden_act is gelu", "text_config.hidden_act is quick_gelu"],
        ),
        (
            {**FILES, "preprocessor_config": {**PROCESSOR, "image_mean": list(OPENAI)}},
            ["preprocess_cfg.mean is [0.5, 0.5, 0.5]", "preprocessor_config.json, image_mean is [0.48145466,"],
        ),
        (
            {**FILES, "preprocessor_config": {**PROCESSOR, "do_normalize": False}},
            ["preprocess_cfg.mean is [0.5, 0.5, 0.5]", "preprocessor_config.json, image_mean is [0.0, 0.0, 0.0]"],
        ),
        (
            {
                "open_clip_config": {"model_cfg": MODEL, "preprocess_cfg": {**PHOTOS, "size": 336}},
                "preprocessor_config": PROCESSOR,
            },
            ["preprocess_cfg.size is 336", "preprocessor_config.json, size is {'shortest_edge': 224}"],
        ),
        (
            {
                "preprocessor_config": PROCESSOR,
                "processor_config": {"image_processor": {**PROCESSOR, "image_std": 0.2}},
            },
            [
                "preprocessor_config.json, image_std is [0.5, 0.5, 0.5]",
                "processor_config.json, image_processor, image_std",
            ],
        ),
    ],
)
def test_files_that_contradict_each_other_are_refused_with_both_values(folder, files, said):
    with pytest.raises(Mismatch) as caught:
        read_beside(folder(**files))
    for text in said:
        assert text in caught.value.message


def test_files_that_resize_in_two_ways_are_told_and_open_clips_is_followed(folder):
    place = folder(
        open_clip_config={"model_cfg": MODEL, "preprocess_cfg": {**PHOTOS, "resize_mode": "squash"}},
        preprocessor_config={**PROCESSOR, "size": 256},  # open_clip could not do it
    )
    with pytest.warns(SgloraWarning, match=r"resize_mode is 'squash', but .*size is 256.*. The first is used"):
        assert prepared(place) == (HALF, "squash")


def test_means_that_were_rounded_are_the_same(folder):
    place = folder(
        open_clip_config={"model_cfg": MODEL, "preprocess_cfg": {"mean": [0.481, 0.458, 0.408]}},
        preprocessor_config={**PROCESSOR, "image_mean": list(OPENAI), "image_std": list(OPENAI_STD)},
    )
    assert prepared(place, "ViT-L-14-quickgelu", "openai") == ((0.481, 0.458, 0.408), "shortest")


def test_a_file_that_contradicts_the_tag_is_refused_or_told(folder):
    place = folder(**FILES)
    with pytest.raises(Mismatch) as caught:
        prepared(place, "ViT-L-14-quickgelu", "openai")
    assert (
        "preprocess_cfg.mean is [0.5, 0.5, 0.5], but open_clip's weights ViT-L-14-quickgelu/openai have [0.48"
        in str(caught.value)
    )
    assert caught.value.hint == "pass --backbone open_clip:ViT-L-14-quickgelu to use the file's value, or fix the file"
    assert prepared(place, "ViT-L-14", "laion2b_s32b_b82k") == (HALF, "shortest")
    folder(open_clip_config={"model_cfg": MODEL, "preprocess_cfg": {**PHOTOS, "resize_mode": "longest"}})
    (place / "preprocessor_config.json").unlink()
    with pytest.warns(
        SgloraWarning, match=r"'longest', but open_clip's weights .* have 'shortest'. The file's value is used"
    ):
        assert prepared(place, "ViT-L-14", "laion2b_s32b_b82k") == (HALF, "longest")


def test_a_tag_whose_activation_is_not_the_architectures_is_refused():
    with pytest.raises(
        Mismatch, match="'openai' of open_clip were trained with QuickGELU, but architecture ViT-B-16"
    ) as e:
        tag_config("ViT-B-16", "openai")
    assert e.value.hint == "pass --backbone open_clip:ViT-B-16-quickgelu/openai"
    assert tag_config("ViT-B-16-quickgelu", "openai")["quick_gelu"]
    assert not tag_config("ViT-B-16", "laion2b_s34b_b88k").get("quick_gelu")


def hub_config(architecture):
    """transformers' config of one of open_clip's own models, made field by field as the converter of LAION does."""
    config = open_clip.get_model_config(architecture)
    vision, text = config["vision_cfg"], config["text_cfg"]
    return {
        "model_type": "clip",
        "projection_dim": config["embed_dim"],
        "vision_config": {
            "hidden_act": "gelu",
            "hidden_size": vision["width"],
            "intermediate_size": int(vision["width"] * vision.get("mlp_ratio", 4)),
            "num_hidden_layers": vision["layers"],
            "num_attention_heads": vision["width"] // vision.get("head_width", 64),
            "patch_size": vision["patch_size"],
            "image_size": vision["image_size"],
            "layer_norm_eps": 1e-05,
        },
        "text_config": {
            "hidden_act": "gelu",
            "hidden_size": text["width"],
            "num_hidden_layers": text["layers"],
            "num_attention_heads": text["heads"],
            "max_position_embeddings": 77,
            "vocab_size": 49408,
        },
    }


@pytest.mark.parametrize("architecture", ["ViT-B-32", "ViT-B-16", "ViT-L-14", "ViT-H-14", "ViT-g-14", "ViT-bigG-14"])
def test_configurations_of_open_clips_own_models_fit(folder, architecture):
    own = open_clip.get_model_config(architecture)
    place = folder(
        config=hub_config(architecture),
        open_clip_config={"model_cfg": own, "preprocess_cfg": {**PHOTOS, "size": 224}},
        preprocessor_config=PROCESSOR,
    )
    check_architecture(read_beside(place), architecture, own)


@pytest.mark.parametrize(
    ("part", "key", "value", "own"),
    [
        ("vision_config", "hidden_size", 1024, 768),
        ("vision_config", "num_attention_heads", 8, 12),  # no tensor shows it
        ("vision_config", "layer_norm_eps", 1e-6, 1e-5),
        ("text_config", "num_attention_heads", 12, 8),
    ],
)
def test_a_configuration_of_another_model_is_refused(folder, part, key, value, own):
    config = hub_config("ViT-B-16")
    config[part][key] = value
    with pytest.raises(Mismatch) as caught:
        check_architecture(read_beside(folder(config=config)), "ViT-B-16", open_clip.get_model_config("ViT-B-16"))
    assert f"config.json, {part}.{key} is {value}, but architecture ViT-B-16 has {own}" in caught.value.message
    assert "move them into their own folder" in caught.value.hint


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"text_cfg": {"width": 512, "heads": 4}}, "model_cfg.text_cfg.heads is 4, but architecture ViT-B-16 has 8"),
        (
            {"vision_cfg": {"patch_size": 16, "pool_type": "avg"}},
            "pool_type is 'avg', but architecture ViT-B-16 has 'tok'",
        ),
        ({"embed_dim": 768}, "model_cfg.embed_dim is 768, but architecture ViT-B-16 has 512"),
    ],
)
def test_a_configuration_of_open_clips_for_another_model_is_refused(folder, change, message):
    place = folder(open_clip_config={"model_cfg": change})
    with pytest.raises(Mismatch, match="but architecture") as caught:
        check_architecture(read_beside(place), "ViT-B-16", open_clip.get_model_config("ViT-B-16"))
    assert message in caught.value.message


def test_a_size_that_the_architecture_does_not_take_is_refused(folder):
    place = folder(preprocessor_config={**PROCESSOR, "size": 336, "crop_size": 336})
    with pytest.raises(Mismatch, match=r"size is 336, but architecture ViT-L-14 needs photos of \[224, 224\] pixels"):
        check_architecture(read_beside(place), "ViT-L-14", open_clip.get_model_config("ViT-L-14"))
    check_architecture(read_beside(place), "ViT-L-14-336", open_clip.get_model_config("ViT-L-14-336"))
