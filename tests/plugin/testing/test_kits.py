"""The conformance kits for data sets, generators, captioners and reporters: built-ins pass, and faults are found."""

from __future__ import annotations

import sys

import pytest
import torch
from distributions import HERE, install
from thirdparty.sglora_parrot import ParrotModel

from sglora_calibrated import sglora_generators as calibrated
from sglora_cli.errors import Mismatch, PluginError, Unavailable, UsageError
from sglora_cli.plugin import host
from sglora_cli.plugin.values import Photo, Task
from sglora_cli.testing import (
    KITS,
    GeneratorTrial,
    check_backbone,
    check_captioner,
    check_dataset,
    check_generator,
    check_reporter,
    run_check,
)
from sglora_cvae import sglora_generators as learned
from sglora_datasets.folder import Folder
from sglora_merge import sglora_generators as merged
from sglora_reports import sglora_reporters

QUICK = {"hidden": 8, "latent": 3, "epochs": 200, "learning_rate": 0.01}
GENERATORS = {one.name: one for one in (*learned(), *calibrated(), *merged())}


@pytest.mark.parametrize("name", GENERATORS)
def test_built_in_generators_pass(name):
    if name == "lorahub":
        pytest.importorskip("cma")
    check_generator(GENERATORS[name], QUICK if name in {one.name for one in learned()} else {})


@pytest.mark.parametrize("reporter", sglora_reporters(), ids=lambda one: one.name)
def test_built_in_reporters_pass(reporter):
    check_reporter(reporter)


def test_the_folder_passes(photos):
    check_dataset(Folder(), photos)


def test_the_example_of_a_captioner_passes():
    check_captioner(ParrotModel())


def test_every_kind_has_a_kit():
    assert tuple(KITS) == host.PLUGIN_KINDS


class Simple:
    """A generator that passes: the mean of the prior, and noise."""

    name = summary = label = "simple"
    learns, draws, needs, config = False, True, "", None

    def fit(self, material, settings):
        if settings:
            raise Mismatch("no settings")
        return self.restore(material.experts, {}), {}

    def restore(self, experts, tensors):
        return self

    def tensors(self):
        return {}

    def generate(self, prior, samples, seed, temperature):
        dice = torch.Generator().manual_seed(seed)
        return prior.mean_P + temperature * torch.randn(samples, len(prior.mean_P), generator=dice)


class Learned(Simple):
    learns = True

    def tensors(self):
        return {"weight": torch.ones(3)}


class Global(Simple):
    def generate(self, prior, samples, seed, temperature):
        torch.manual_seed(seed)
        return prior.mean_P + temperature * torch.randn(samples, len(prior.mean_P))


class Careless(Simple):
    def fit(self, material, settings):
        return self, {}


class Hot(Simple):
    def generate(self, prior, samples, seed, temperature):
        return super().generate(prior, samples, seed, 1.0)


class Forgetful(Simple):
    def restore(self, experts, tensors):
        return Hot() if tensors else self  # the host hands it the joint adapter, fit does not

    def generate(self, prior, samples, seed, temperature):
        return super().generate(prior, samples, seed, 0.0)


class Grabby(Simple):
    def generate(self, prior, samples, seed, temperature):
        prior.mean_P.mul_(2)
        return super().generate(prior, samples, seed, temperature)


class Flat(Simple):
    def generate(self, prior, samples, seed, temperature):
        return super().generate(prior, samples, seed, temperature)[0]


class Stuck(Simple):
    def generate(self, prior, samples, seed, temperature):
        return super().generate(prior, samples, 0, temperature)


class Needy(Simple):
    needs = "shots"


@pytest.mark.parametrize(
    ("broken", "check", "message"),
    [
        (Global, "inputs_stay_as_they_are", "torch's random numbers were used"),
        (Careless, "unknown_settings_are_refused", "fit takes a setting there is none of"),
        (Hot, "temperature_zero_is_one_adapter", "at temperature 0 samples differ"),
        (Forgetful, "restored_is_the_same", "a restored generator gives other adapters"),
        (Grabby, "inputs_stay_as_they_are", "generate changed the prior it was given"),
        (Flat, "adapters_have_their_shape", "1 samples have shape (66,), not (1, 66)"),
        (Stuck, "a_seed_says_everything", "every seed gives the same adapters"),
        (Learned, "damage_is_not_hidden", "a generator without a finite number gives adapters"),
        (Needy, "adapters_have_their_shape", "it says that it needs data, and generate works without"),
    ],
)
def test_a_broken_generator_is_found(broken, check, message):
    found = {c.__name__: run_check(c, GeneratorTrial(broken())) for c in KITS["generator"]}
    assert found[check] == message
    check_generator(Simple())


def tasks(root, name="cat", captions=("a cat",), dataset="odd", **splits):
    photos = {split: [Photo(root / file, captions) for file in files] for split, files in splits.items()}
    return Task(dataset, name, f"a photo of a {name}", photos)


@pytest.mark.parametrize(
    ("make", "check", "message"),
    [
        (lambda r: [], "tasks_are_sorted_and_named", "there is no task in "),
        (lambda r: [tasks(r, "b"), tasks(r, "a")], "tasks_are_sorted_and_named", "tasks must be sorted by name"),
        (lambda r: [tasks(r, dataset="")], "tasks_are_sorted_and_named", "task 'cat' says no data set"),
        (lambda r: [tasks(r, test=["gone.png"])], "photos_are_there", "gone.png does not exist"),
        (lambda r: [tasks(r, captions=(" ",), test=["0.png"])], "photos_are_there", "has no caption, or an empty one"),
        (lambda r: [tasks(r, train=["0.png"], test=["0.png"])], "splits_are_apart", "task 'cat' trains and tests on "),
        (lambda r: [tasks(r, test=["0.png"])], "an_empty_folder_is_refused", "an empty folder is taken for the data"),
    ],
)
def test_a_broken_data_set_is_found(photos, make, check, message):
    class Odd:
        name = summary = "odd"

        def tasks(self, root):
            return make(photos)

    found = {c.__name__: run_check(c, Odd(), photos) for c in KITS["dataset"]}
    assert message in found[check]


def test_a_captioner_that_rolls_its_own_dice_is_found():
    class Random(ParrotModel):
        def write(self, image, prompt, count, seed):
            return [str(torch.rand(1)) for _ in range(count)]

    with pytest.raises(PluginError, match="the same arguments give other texts"):
        check_captioner(Random())


@pytest.mark.parametrize(
    ("render", "message"),
    [
        (lambda report: "nothing\n", "method 'zero-shot' is not in the text"),
        (lambda report: "Zero-shot, SG-LoRA", "a text that ends with a line break"),
        (lambda report: f"Zero-shot, SG-LoRA {report.rows[3]}\n", "IndexError"),
    ],
)
def test_a_broken_reporter_is_found(render, message):
    class Odd:
        name = summary = "odd"

        def render(self, report):
            return render(report)

    with pytest.raises(PluginError, match=message):
        check_reporter(Odd())


def test_a_broken_backbone_is_refused_with_all_that_is_wrong():
    from thirdparty.sglora_tiny import TinyModel

    check_backbone(TinyModel())
    broken = TinyModel()
    broken.scale, broken.fingerprint = 0.0, ""
    with pytest.raises(PluginError, match=r"^identity_is_complete: fingerprint must be a text, not empty$"):
        check_backbone(broken)


def test_the_command_checks_whatever_it_is_named(run, photos, site):
    install(site, "sglora-parrot", "sglora_parrot", (HERE / "thirdparty/sglora_parrot.py").read_text())
    for kind, arguments in (
        ("dataset", ("folder", "--path", photos)),
        ("generator", ("top-k",)),
        ("generator", ("ties:density=0.5",)),
        ("captioner", ("parrot",)),
        ("reporter", ("csv",)),
    ):
        result = run("plugins", "check", *arguments)
        assert result.exit_code == 0, result.output
        assert result.stdout == "".join(f"{'ok':<7} {check.__name__}\n" for check in KITS[kind])
    sys.modules.pop("sglora_parrot", None)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("folder",), 2, "error: data set 'folder' is checked on its folder\nhint: pass --path DIR\n"),
        (("strater",), 3, "error: no plugin named 'strater'\nhint: did you mean 'starter'?\n"),
        (("starter", "--kind", "reporter"), 3, "error: no reporter named 'starter'\n"),
    ],
)
def test_the_command_answers_mistakes(run, arguments, code, message):
    result = run("plugins", "check", *arguments)
    assert (result.exit_code, result.stdout) == (code, "")
    assert result.stderr.startswith(message)


def test_a_name_of_several_kinds_is_asked_for_its_kind():
    one = host.Host()
    one.reporters.add("a", "csv", sglora_reporters()[0])
    one.datasets.add("b", "csv", Folder())
    with pytest.raises(UsageError, match="'csv' is the name of several plugins: dataset or reporter"):
        one.registry_of("csv")
    assert one.registry_of("csv", "reporter") is one.reporters
    with pytest.raises(Unavailable):
        one.datasets["csv"].tasks(HERE / "nowhere")
