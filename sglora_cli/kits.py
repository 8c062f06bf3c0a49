"""The conformance kits for data sets, generators, captioners and reporters; testing.py says how to run them.

Shapes: S samples, P numbers of an adapter.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sglora_cli.contracts import CaptionModel, Dataset, Fitted, Generator, Material, Report, Reporter, Row
from sglora_cli.errors import SgloraError, Unavailable
from sglora_cli.files import load_tensors, read_image, save_tensors
from sglora_cli.kit_tools import LAYOUT, ToyExperts, ask, images, material


def tasks_are_sorted_and_named(dataset: Dataset, root: Path) -> None:
    """tasks gives at least one task, sorted by name and each once; all say of which data set they are."""
    tasks = dataset.tasks(root)
    ask(len(tasks) > 0, f"there is no task in {root}", "raise Unavailable where there is nothing")
    names = [task.name for task in tasks]
    ask(names == sorted(names), "tasks must be sorted by name")
    ask(len(set(names)) == len(names), "two tasks have one name")
    for task in tasks:
        ask(task.dataset != "", f"task {task.name!r} says no data set", "its folder's name, or the plugin's")
        ask(task.description.strip() != "", f"task {task.name!r} has no description")


def photos_are_there(dataset: Dataset, root: Path) -> None:
    """Every photo is a file with captions that are not empty; the first of each task can be read."""
    for task in dataset.tasks(root):
        photos = [photo for side in task.photos.values() for photo in side]
        ask(len(photos) > 0, f"task {task.name!r} has no photo")
        for photo in photos:
            ask(photo.path.is_file(), f"{photo.path} does not exist")
            good = len(photo.captions) > 0 and all(isinstance(c, str) and c.strip() for c in photo.captions)
            ask(good, f"{photo.path} has no caption, or an empty one")
            known = not task.classes or (len(photo.captions) == 1 and photo.captions[0] in task.classes)
            ask(known, f"{photo.path}: {photo.captions!r:.100} is none of the classes of task {task.name!r}")
        read_image(photos[0].path)


def splits_are_apart(dataset: Dataset, root: Path) -> None:
    """Splits are train and test, and no photo of a task is in both."""
    for task in dataset.tasks(root):
        ask(set(task.photos) <= {"train", "test"}, f"task {task.name!r} has splits {sorted(task.photos)}")
        train, test = ({photo.path for photo in task.photos.get(split, ())} for split in ("train", "test"))
        both = sorted(map(str, train & test))
        ask(not both, f"task {task.name!r} trains and tests on {both[0] if both else ''}")


def the_same_every_time(dataset: Dataset, root: Path) -> None:
    """tasks, and images where there is one, give the same when they are asked again."""
    ask(list(dataset.tasks(root)) == list(dataset.tasks(root)), "tasks gives something else the second time")
    listing = getattr(dataset, "images", None)
    if listing is not None:
        found = [one.image for one in listing(root)]
        ask(found == [one.image for one in listing(root)], "images gives something else the second time")
        ask(len(set(found)) == len(found), "images lists an image twice")


def an_empty_folder_is_refused(dataset: Dataset, root: Path) -> None:
    """A folder without the data set is answered with Unavailable or another error of sglora, not with no tasks."""
    with tempfile.TemporaryDirectory() as empty:
        try:
            dataset.tasks(Path(empty))
        except SgloraError as error:
            ask(error.message != "", "the error says nothing")
            return
    ask(False, "an empty folder is taken for the data set", "raise Unavailable, and say what belongs there")


@dataclass(frozen=True)
class Trial:
    """A generator, and what it makes of toy experts and training tasks."""

    generator: Generator
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Its table in a recipe: what keeps a slow one short."""
    experts: ToyExperts = field(default_factory=ToyExperts)

    @cached_property
    def material(self) -> Material:
        return material(self.experts)

    @cached_property
    def fitted(self) -> Fitted:
        return self.generator.fit(self.material, self.settings)[0]

    @property
    def asks_for_data(self) -> bool:
        """Whether it needs more than a prior: then the kit cannot ask it for adapters."""
        return getattr(self.generator, "needs", "") != ""

    def generate(self, samples: int = 3, seed: int = 5, temperature: float = 1.0, row: int = 7) -> Tensor:
        return self.fitted.generate(self.experts.prior(row), samples, seed, temperature)


def fit_gives_numbers_that_can_be_kept(trial: Trial) -> None:
    """fit returns a fitted generator and measurements for JSON; its tensors are finite and safetensors keeps them."""
    fitted, facts = trial.generator.fit(trial.material, trial.settings)
    json.dumps(facts)
    for name, tensor in fitted.tensors().items():
        ask(isinstance(tensor, Tensor), f"tensors()[{name!r}] is no tensor")
        ask(bool(torch.isfinite(tensor.float()).all()), f"tensors()[{name!r}] has numbers that are not finite")
    _kept(fitted)


def adapters_have_their_shape(trial: Trial) -> None:
    """generate gives float32 (samples, P), all finite, for any number of samples and any prior."""
    if trial.asks_for_data:
        return _refuses_without_data(trial)
    for samples, row in ((1, 0), (4, 5), (2, 9)):
        adapters_SP = trial.generate(samples, row=row)
        shape = tuple(adapters_SP.shape)
        ask(shape == (samples, LAYOUT.size), f"{samples} samples have shape {shape}, not {(samples, LAYOUT.size)}")
        ask(adapters_SP.dtype == torch.float32, f"adapters must be float32, got {adapters_SP.dtype}")
        ask(bool(torch.isfinite(adapters_SP).all()), "adapters have numbers that are not finite")
    return None


def a_seed_says_everything(trial: Trial) -> None:
    """The same seed gives the same adapters whatever was asked before; another one differs where samples do."""
    if trial.asks_for_data:
        return
    first_SP = trial.generate()
    torch.rand(3)
    other_SP = trial.generate(seed=6)
    ask(torch.equal(first_SP, trial.generate()), "the same seed gives other adapters", "take a torch.Generator of it")
    draws = getattr(trial.generator, "draws", trial.generator.learns)
    ask(not draws or not torch.equal(first_SP, other_SP), "every seed gives the same adapters", "say draws = False")


def temperature_zero_is_one_adapter(trial: Trial) -> None:
    """At temperature 0 all samples of all seeds are the same."""
    if trial.asks_for_data:
        return
    adapters_SP = torch.cat([trial.generate(temperature=0.0), trial.generate(seed=6, temperature=0.0)])
    ask(torch.allclose(adapters_SP, adapters_SP[:1], atol=1e-6), "at temperature 0 samples differ")


def restored_is_the_same(trial: Trial) -> None:
    """What `restore` makes of the tensors read back from a file gives the adapters that `fit` gave, up to float16."""
    tensors = _kept(trial.fitted) if trial.generator.learns else {"joint": trial.material.joint_P}  # as packs.py does
    again = trial.generator.restore(trial.experts, tensors)
    if trial.asks_for_data:
        return
    prior = trial.experts.prior(7)
    gap_SP = again.generate(prior, 3, 5, 1.0) - trial.generate()
    ask(float(gap_SP.norm()) <= 1e-2 * float(trial.generate().norm()), "a restored generator gives other adapters")


def inputs_stay_as_they_are(trial: Trial) -> None:
    """Neither fit nor generate changes what it is given, nor torch's own random numbers."""
    fresh, state = ToyExperts(), torch.get_rng_state()
    trial.generator.fit(trial.material, trial.settings)
    if not trial.asks_for_data:
        prior = trial.experts.prior(7)
        trial.fitted.generate(prior, 2, 0, 1.0)
        ask(torch.equal(prior.mean_P, fresh.prior(7).mean_P), "generate changed the prior it was given")
    same = torch.equal(trial.experts.mean_EP, fresh.mean_EP) and all(
        torch.equal(trial.material.states(t), material(fresh).states(t)) for t in range(len(trial.material.tasks))
    )
    ask(same, "the experts' or the tasks' adapters were changed", "copy before you change")
    ask(torch.equal(state, torch.get_rng_state()), "torch's random numbers were used", "take a torch.Generator")


def damage_is_not_hidden(trial: Trial) -> None:
    """Tensors that are not finite are refused with an error of sglora, or are to be seen in the adapters."""
    tensors = _kept(trial.fitted)
    if not tensors or trial.asks_for_data:
        return
    broken = {name: torch.full_like(t, torch.nan) if t.is_floating_point() else t for name, t in tensors.items()}
    try:
        adapters_SP = trial.generator.restore(trial.experts, broken).generate(trial.experts.prior(7), 1, 0, 1.0)
    except SgloraError:
        return
    ask(not bool(torch.isfinite(adapters_SP).all()), "a generator without a finite number gives adapters")


def unknown_settings_are_refused(trial: Trial) -> None:
    """fit raises an error of sglora for a setting there is none of: a recipe with a slip must not be built."""
    try:
        trial.generator.fit(trial.material, {**trial.settings, "no_such_setting": 1})
    except SgloraError:
        return
    ask(False, "fit takes a setting there is none of", "read them with from_mapping(YourConfig, settings, ...)")


def _refuses_without_data(trial: Trial) -> None:
    try:
        trial.generate()
    except Unavailable:
        return
    ask(False, "it says that it needs data, and generate works without", "raise Unavailable, or drop `needs`")


def _kept(fitted: Fitted) -> dict[str, Tensor]:
    """Its tensors, written to a file and read back."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.safetensors"
        save_tensors(path, fitted.tensors(), {})
        return {name: tensor.clone() for name, tensor in load_tensors(path)[0].items()}


def texts_are_as_many_as_asked(model: CaptionModel) -> None:
    """write gives `count` texts about an image of any size."""
    for image in (*images(2), images(1)[0].resize((1, 1))):
        for count in (1, 3):
            texts = model.write(image, PROMPT, count, 0)
            good = isinstance(texts, list | tuple) and all(isinstance(text, str) for text in texts)
            ask(good and len(texts) == count, f"asked for {count} texts, it gave {texts!r:.100}")


def arguments_say_everything(model: CaptionModel) -> None:
    """The same arguments give the same texts, whatever was asked before; the image stays as it was."""
    one, other = images(2)
    before, state = one.tobytes(), torch.get_rng_state()
    texts = list(model.write(one, PROMPT, 2, 7))
    model.write(other, PROMPT, 2, 8)
    ask(texts == list(model.write(one, PROMPT, 2, 7)), "the same arguments give other texts", "seed every call")
    ask(one.tobytes() == before, "the image was changed", "copy before you change")
    ask(torch.equal(state, torch.get_rng_state()), "torch's random numbers were used", "use torch.random.fork_rng")


def every_method_is_named(reporter: Reporter) -> None:
    """render gives a text that ends with a line break and has each method's name or label."""
    report = sample_report()
    text = reporter.render(report)
    ask(isinstance(text, str) and text.endswith("\n"), "render must give a text that ends with a line break")
    for name, label in report.labels.items():
        ask(name in text or label in text, f"method {name!r} is not in the text")


def reports_of_any_kind(reporter: Reporter) -> None:
    """It prints reports without rows, of one row, of classification tasks, and with strange names; twice the same."""
    whole = sample_report()
    strange = [replace(row, task='a "b", <c> | & \\d_e% \u00e9\u4e2d') for row in whole.rows]
    accuracy = [Row("zero-shot", "toys", "cup", 0, "ACC", 1, 50.0)]
    for rows in (whole.rows, strange, whole.rows[:1], accuracy, ()):
        report = replace(whole, rows=rows, differences={} if len(rows) < 2 else whole.differences)
        ask(reporter.render(report) == reporter.render(report), "the same report gives another text")


PROMPT = "Input: A photo of pug. Output: The pug has a fawn coat.\nInput: A photo of cat. Output:"


def sample_report() -> Report:
    """Two methods on two tasks."""
    rows = [
        Row(method, "toys", task, sample, direction, k, 12.5 * (k % 4) + 10 * m + sample)
        for m, (method, samples) in enumerate((("zero-shot", 1), ("cvae", 2)))
        for task in ("cup", "hat")
        for sample in range(samples)
        for direction in ("I2T", "T2I")
        for k in (1, 5, 10)
    ]
    labels = {"zero-shot": "Zero-shot", "cvae": "SG-LoRA"}
    differences = {("cvae", d, k): (10.5, -1.0, 22.0) for d in ("I2T", "T2I") for k in (1, 5, 10)}
    return Report("toys", rows, labels, differences, "zero-shot", notes=("a note",))


DATASET_CHECKS: tuple[Callable[[Dataset, Path], None], ...] = (
    tasks_are_sorted_and_named,
    photos_are_there,
    splits_are_apart,
    the_same_every_time,
    an_empty_folder_is_refused,
)
GENERATOR_CHECKS: tuple[Callable[[Trial], None], ...] = (
    fit_gives_numbers_that_can_be_kept,
    adapters_have_their_shape,
    a_seed_says_everything,
    temperature_zero_is_one_adapter,
    restored_is_the_same,
    inputs_stay_as_they_are,
    damage_is_not_hidden,
    unknown_settings_are_refused,
)
CAPTIONER_CHECKS: tuple[Callable[[CaptionModel], None], ...] = (texts_are_as_many_as_asked, arguments_say_everything)
REPORTER_CHECKS: tuple[Callable[[Reporter], None], ...] = (every_method_is_named, reports_of_any_kind)
