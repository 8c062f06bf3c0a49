"""A plugin that fails at work, or answers with something else than it should, is named; the program goes on."""

from __future__ import annotations

import copy
import pickle
import sys
from pathlib import Path

import pytest
import torch
from distributions import install
from thirdparty.sglora_tiny import TinyBackbone, TinyModel

from sglora_cli.config import RuntimeConfig
from sglora_cli.errors import Mismatch, PluginError, Unavailable
from sglora_cli.lora.layout import Site
from sglora_cli.plugin.contracts import (
    POWERS,
    ChecksText,
    CountsImages,
    CountsTokens,
    Fetches,
    HasMembers,
    HasProjection,
    ListsImages,
    MergesCheckpoints,
    Model,
    PlansFetch,
    SaysPassedOver,
    UsesDevice,
)
from sglora_cli.plugin.guard import GuardedBackbone, GuardedDataset, GuardedFitted
from sglora_cli.plugin.host import Registry
from sglora_cli.plugin.values import Download, FetchPlan, Task
from sglora_cli.testing import adapters, images, layout_of

WRAPPERS = {"backbone": GuardedBackbone, "dataset": GuardedDataset}


def guarded(kind, value):
    registry = Registry(kind, WRAPPERS[kind])
    registry.add("sglora-odd", value.name, value)
    return registry[value.name]


def model(**methods):
    """The tiny model with methods replaced, out of a registry."""
    odd = type("Odd", (TinyModel,), methods)
    return guarded("backbone", type("B", (TinyBackbone,), {"load": lambda self, runtime: odd()})()).load(
        RuntimeConfig()
    )


def test_a_good_model_is_as_it_was():
    plain, ours = TinyModel(), model()
    layout, stem = layout_of(plain), plain.stem(images())
    assert torch.equal(ours.encode_image(stem), plain.encode_image(stem))
    flat_TP = adapters(layout, 2).requires_grad_()
    ours.encode_image(stem=stem, layout=layout, adapters_TP=flat_TP).sum().backward()
    assert float(flat_TP.grad.abs().max()) > 0
    assert (ours.fingerprint, ours.sites, hasattr(ours, "check_text")) == ("tiny-1", plain.sites, False)
    module = torch.nn.Linear(2, 2)
    assert model(module=module).module is module


def test_a_model_has_the_optional_methods_of_its_value_and_no_others():
    def check_text(self, text):
        raise Mismatch("9 tokens")

    plain, ours = model(), model(check_text=check_text, fetch=lambda self: "its own")
    assert [power for power in POWERS[Model] if isinstance(plain, power)] == []
    assert [power for power in POWERS[Model] if isinstance(ours, power)] == [ChecksText]
    assert not isinstance(model(merged=lambda self, layout, flat_P: {}), MergesCheckpoints)  # half of two methods
    assert ours.fetch() == "its own"  # no optional method of models: as the value has it
    with pytest.raises(Mismatch, match="9 tokens"):
        ours.check_text("a photo")


def test_a_generator_that_moves_to_a_device_stays_guarded():
    class Moved:
        def generate(self, prior, samples, seed, temperature):
            return torch.zeros(samples, 1)

        def tensors(self):
            raise OSError("no tensors there")

    class Stays(Moved):
        def on_device(self, device):
            return Moved() if device.type == "cpu" else None

    fitted = GuardedFitted(Stays(), "generator 'odd' of sglora-odd")
    assert (isinstance(fitted, UsesDevice), isinstance(GuardedFitted(Moved(), "x"), UsesDevice)) == (True, False)
    with pytest.raises(PluginError, match="generator 'odd' of sglora-odd failed in tensors: OSError: no tensors there"):
        fitted.on_device(torch.device("cpu")).tensors()
    with pytest.raises(PluginError, match="on_device must return a Fitted, and NoneType lacks generate, tensors"):
        fitted.on_device(torch.device("cuda"))


def test_what_a_model_says_of_earlier_weights_is_checked():
    said = {"tiny-0": "tiny 0"}
    assert model(earlier=lambda self, fingerprint: said.get(fingerprint)).earlier("tiny-0") == "tiny 0"
    with pytest.raises(PluginError, match="earlier must return None or a non-empty string, got 1"):
        model(earlier=lambda self, fingerprint: 1).earlier("tiny-0")


def projecting(**odd):
    methods = {
        "projection": Site("head", 3, 4),
        "projection_weight": lambda self: torch.zeros(3, 4),
        "unprojected": lambda self, stem: torch.zeros(len(stem), 4),
    }
    return model(**{**methods, **odd})


def test_a_model_with_a_projection_is_seen_as_one():
    ours = projecting()
    assert isinstance(ours, HasProjection)
    assert not isinstance(model(projection=Site("head", 3, 4)), HasProjection)  # a third of it
    assert ours.projection == Site("head", 3, 4)
    assert ours.projection_weight().shape == (3, 4)
    assert ours.unprojected(torch.zeros(2, 5)).shape == (2, 4)


@pytest.mark.parametrize(
    ("odd", "message"),
    [
        ({"projection": "head"}, "projection must be a Site, got 'head'"),
        (
            {"projection_weight": lambda self: torch.zeros(4, 3)},
            r"projection_weight must return a tensor of shape \(3, 4\)",
        ),
        ({"projection_weight": lambda self: torch.zeros(3, 4).half()}, "projection_weight must return float32, got"),
        ({"unprojected": lambda self, stem: torch.zeros(1, 4)}, r"unprojected must return a tensor of shape \(2, 4\)"),
        ({"unprojected": lambda self, stem: torch.full((2, 4), torch.nan)}, "unprojected returns numbers that are not"),
        ({"unprojected": lambda self, stem: 1 / 0}, "failed in unprojected: ZeroDivisionError"),
    ],
)
def test_a_projection_that_is_none_is_named(odd, message):
    ours = projecting(**odd)
    with pytest.raises(PluginError, match=message):
        (ours.projection_weight(), ours.unprojected(torch.zeros(2, 5)))


@pytest.mark.parametrize("counts", [[1], [1, 2, 3], [1, -1], [1, 2.0], [True, 2], None, "12"])
def test_counts_of_tokens_are_whole_numbers_one_a_text(counts):
    methods = {"token_limit": lambda self: 9, "count_tokens": lambda self, texts: counts}
    ours = guarded("backbone", type("B", (TinyBackbone,), methods)())
    assert isinstance(ours, CountsTokens)
    assert ours.token_limit() == 9
    with pytest.raises(PluginError, match=r"count_tokens must return 2 whole number\(s\) of at least 0, got "):
        ours.count_tokens(["a", "b"])


@pytest.mark.parametrize("limit", [0, 1.5, None])
def test_a_text_encoder_reads_a_token_or_more(limit):
    methods = {"token_limit": lambda self: limit, "count_tokens": lambda self, texts: [1 for _ in texts]}
    ours = guarded("backbone", type("B", (TinyBackbone,), methods)())
    assert ours.count_tokens(("a", "b")) == [1, 1]
    with pytest.raises(PluginError, match="token_limit must return 1 whole"):
        ours.token_limit()
    assert not isinstance(guarded("backbone", TinyBackbone()), CountsTokens)


class Family:
    """A data set with all that is optional."""

    name, summary = "family", "a family of data sets"

    def __init__(self, side=""):
        self.side = side

    def tasks(self, root):
        return [Task(self.side, "cat", "a cat", {})]

    def member(self, rest):
        return Family(rest) if rest != "odd" else "no data set"

    def images(self, root):
        return []

    def fetch(self, data, note):
        return data / self.side


@pytest.mark.parametrize("answer", [None, 3, ["x"], [("x",)], [("x", 3)], [("", "y")]])
def test_what_a_data_set_passes_over_is_pairs_of_texts(answer, tmp_path):
    odd = type("Odd", (Family,), {"passed_over": lambda self, root: answer})()
    with pytest.raises(PluginError, match=r"^dataset 'family' of plugin 'sglora-odd'(: | failed in )passed_over"):
        list(guarded("dataset", odd).passed_over(tmp_path))
    assert not isinstance(guarded("dataset", Family()), SaysPassedOver)
    good = type("Good", (Family,), {"passed_over": lambda self, root: iter([("x", "y")])})()
    assert list(guarded("dataset", good).passed_over(tmp_path)) == [("x", "y")]


def planned(**wrong):
    return FetchPlan(Path("mine"), [Download(**{"url": "http://a", "path": Path("a"), "bytes": 3, **wrong})])


@pytest.mark.parametrize(
    ("power", "member", "answer"),
    [
        (PlansFetch, "fetch_plan", None),
        (PlansFetch, "fetch_plan", FetchPlan("mine", [])),
        (PlansFetch, "fetch_plan", FetchPlan(Path("mine"), ["http://a"])),
        (PlansFetch, "fetch_plan", planned(bytes=-1)),
        (PlansFetch, "fetch_plan", planned(here=None)),
        (CountsImages, "image_counts", None),
        (CountsImages, "image_counts", (1, 2, 3)),
        (CountsImages, "image_counts", (3, 2)),
        (CountsImages, "image_counts", (1.0, 2)),
    ],
)
def test_what_a_data_set_says_of_itself_is_checked(tmp_path, power, member, answer):
    odd = type("Odd", (Family,), {member: lambda self, folder: answer})()
    with pytest.raises(PluginError, match=rf"^dataset 'family' of plugin 'sglora-odd': {member} "):
        getattr(guarded("dataset", odd), member)(tmp_path)
    assert not isinstance(guarded("dataset", Family()), power)
    right = planned(bytes=None) if power is PlansFetch else (2, 2)
    good = type("Good", (Family,), {member: lambda self, folder: right})()
    assert getattr(guarded("dataset", good), member)(tmp_path) == right


def test_members_of_a_family_are_guarded_and_have_its_optional_methods(tmp_path):
    registry = Registry("dataset", GuardedDataset)
    registry.add("sglora-odd", "family", Family())
    member = registry["family:left"]
    assert isinstance(member, GuardedDataset)
    assert all(isinstance(member, power) for power in (Fetches, HasMembers, ListsImages))
    assert member.fetch(tmp_path, print) == tmp_path / "left"
    with pytest.raises(PluginError, match=r"^dataset 'family' of plugin 'sglora-odd': member must return a Dataset, "):
        registry["family:odd"]


@pytest.mark.parametrize("again", [copy.copy, copy.deepcopy, lambda value: pickle.loads(pickle.dumps(value))])
def test_a_guarded_value_is_copied_and_pickled_with_its_guard(again, tmp_path):
    other = again(guarded("dataset", Family("left")))
    assert isinstance(other, GuardedDataset)
    assert isinstance(other, Fetches)
    assert other.fetch(tmp_path, print) == tmp_path / "left"
    assert other.tasks(tmp_path)[0].dataset == "left"


def test_what_a_backbone_loads_must_be_a_model():
    odd = type("B", (TinyBackbone,), {"load": lambda self, runtime: Family()})()
    with pytest.raises(PluginError, match="load must return a Model, and Family lacks device, encode_image, "):
        guarded("backbone", odd).load(RuntimeConfig())


@pytest.mark.parametrize("name", ["loss_scale", "hub_name"])
def test_a_model_that_lacks_a_member_is_named_with_it(monkeypatch, name):
    monkeypatch.delattr(TinyModel, name)
    with pytest.raises(PluginError, match=rf"'sglora-odd': load must return a Model, and Odd lacks {name}$"):
        model()


def test_a_property_that_fails_names_the_plugin_and_one_that_raises_an_error_of_ours_passes():
    with pytest.raises(PluginError, match="failed in fingerprint: ZeroDivisionError"):
        _ = model(fingerprint=property(lambda self: 1 // 0)).fingerprint
    with pytest.raises(Unavailable, match="no weights"):
        _ = model(fingerprint=property(raising(Unavailable("no weights")))).fingerprint


def raising(error):
    def method(*_):
        raise error

    return method


@pytest.mark.parametrize(
    ("methods", "message"),
    [
        (
            {"encode_text": raising(ZeroDivisionError("no"))},
            r"failed in encode_text: ZeroDivisionError: no \(",
        ),
        ({"encode_text": lambda self, texts: "text"}, "encode_text must return a tensor, got str"),
        (
            {"encode_text": lambda self, texts: torch.ones(1, 8)},
            r"encode_text must return a tensor of shape \(2, D\)",
        ),
        ({"encode_text": lambda self, texts: torch.ones(2, 8).double()}, "must return float32, got torch.float64"),
        ({"encode_text": lambda self, texts: torch.full((2, 8), float("nan"))}, "returns numbers that are not finite"),
    ],
)
def test_a_model_that_breaks_its_word_is_named(methods, message):
    with pytest.raises(PluginError, match=message) as error:
        model(**methods).encode_text(["one", "two"])
    assert error.value.message.startswith("backbone 'tiny' of plugin 'sglora-odd'")
    assert error.value.exit_code == 7


def test_images_are_checked_with_and_without_adapters():
    flat = model(encode_image=lambda self, stem, layout=None, adapters_TP=None: torch.ones(3, 8))
    stem = flat.stem(images())
    assert len(flat.encode_image(stem)) == 3
    with pytest.raises(PluginError, match=r"encode_image must return a tensor of shape \(2, N, D\), got \(3, 8\)"):
        flat.encode_image(stem, layout_of(flat), adapters(layout_of(flat), 2))


@pytest.mark.parametrize(
    "error", [Unavailable("no weights"), MemoryError("full"), torch.OutOfMemoryError("full"), KeyboardInterrupt()]
)
def test_errors_that_are_not_its_fault_pass(error):
    with pytest.raises(type(error)) as caught:
        model(encode_text=raising(error)).encode_text(["one"])
    assert caught.value is error


class Data:
    name = summary = "odd"

    def __init__(self, tasks):
        self.found = tasks

    def tasks(self, root):
        return self.found


@pytest.mark.parametrize(
    ("tasks", "message"),
    [
        (None, "tasks must return a list, got NoneType"),
        (["cat"], "tasks must return Tasks with a name and a description, got 'cat'"),
        ([Task("odd", "", "a cat", {})], "tasks must return Tasks with a name"),
        (
            [Task("odd", "cat", "cat", {"dev": []})],
            "returns task 'cat' with a split 'dev', but splits are train and test",
        ),
        (
            [Task("odd", "cat", "cat", {"test": ["a.jpg"]})],
            "returns task 'cat' with an invalid photo or captions: 'a.jpg'",
        ),
    ],
)
def test_a_data_set_that_gives_no_tasks_is_named(tmp_path, tasks, message):
    with pytest.raises(PluginError, match=message):
        guarded("dataset", Data(tasks)).tasks(tmp_path)


MERGE = """
import torch
from sglora_cli.api import hookimpl
SGLORA_API = "1.0"

class Fitted:
    def generate(self, prior, samples, seed, temperature):
        return {expression}
    def tensors(self):
        return {{}}

class Odd:
    name, summary, label = "odd", "an odd one", "Odd"
    learns, draws, needs, config = False, False, "", None
    def fit(self, material, settings):
        return Fitted(), {{}}
    def restore(self, experts, tensors):
        return Fitted()

@hookimpl
def sglora_generators():
    return [Odd()]
"""


@pytest.mark.parametrize(
    ("expression", "code", "message"),
    [
        (
            "1 / 0",
            7,
            "generator 'odd' of plugin 'odd' failed in generate: ZeroDivisionError: division by zero (",
        ),
        ("prior.mean_P", 7, "error: generator 'odd' of plugin 'odd': generate must return a tensor of shape (1, "),
        ("prior.mean_P[None].double()", 7, "generate must return float32, got torch.float64"),
        ("prior.mean_P[None] * float('nan')", 5, "the output of generator 'odd' contains numbers that are not finite"),
    ],
)
def test_generate_names_the_generator_that_failed_and_writes_nothing(run, site, tmp_path, expression, code, message):
    install(site, "odd", "odd", MERGE.format(expression=expression))
    result = run("generate", "a photo of a pug", "--generator", "odd", "-o", tmp_path / "x.safetensors")
    sys.modules.pop("odd", None)
    assert (result.exit_code, list(tmp_path.iterdir())) == (code, [])
    assert message in result.stderr
