"""The paper's tables and figures, and the measurements for each. A new table needs a new value but no new code.

Recipes are named as the bundled ones. The paper's results are in `bench/paper.json`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from sglora_cli.bench.paper import PAPER
from sglora_cli.errors import Unavailable, UnknownName
from sglora_cli.plugin.values import AGAINST, ORACLE, ZERO

LEARNED = "cvae"
"""The method that the paper calls SG-LoRA."""
LABELS = {
    ZERO: "Zero-shot",
    ORACLE: "Oracle",
    "model-soups": "Model Soups",
    "adapter-soup": "AdapterSoup",
    AGAINST: "Top-K weighted",
    LEARNED: "SG-LoRA",
}
FEATURED = (ZERO, ORACLE, AGAINST, LEARNED)


@dataclass(frozen=True)
class Measurement:
    """One run of `sglora bench` on a pack."""

    name: str
    """The rows are written to NAME.jsonl."""
    recipe: str
    on: str = ""
    """Recipe of another pack whose unseen tasks are used."""
    source: tuple[str, str] = ("", "")
    """(data set, path) of a data set outside the recipes whose test photos are used."""
    tasks: tuple[str, ...] = ()
    """Use only these tasks. Tasks that are not unseen are skipped. If none is left, the first unseen one is used."""
    table: str = "all"
    methods: tuple[str, ...] = PAPER
    photos: bool = False
    """Whether it needs photos of the unseen tasks. Packs do not contain them."""
    captions: bool = False
    """Whether the mean of one caption per image describes a task, as for a data set without categories."""


@dataclass(frozen=True)
class Lean:
    """The weights of the experts for one task's sentence, alpha in Eq. 6."""

    name: str
    recipe: str
    dataset: str
    task: str


@dataclass(frozen=True)
class Line:
    """One line of a table with the means of a method over tasks."""

    label: str
    rows: str
    """The measurement that contains the rows."""
    method: str
    paper: tuple[str, ...] = ()
    """Keys that lead to the paper's results in `paper_numbers()`, or () if the paper prints none."""
    dataset: str = ""
    """Only tasks of this data set."""
    task: str = ""
    """Only this task."""


@dataclass(frozen=True)
class Table:
    """A part of a table, or the values of a figure."""

    title: str
    lines: tuple[Line, ...] = ()
    every: str = ""
    """A measurement of which every method gets a line, instead of `lines`."""
    lean: str = ""
    """Name of a `Lean` to show instead of `lines`."""


@dataclass(frozen=True)
class Target:
    """One table or figure of the paper."""

    name: str
    title: str
    measurements: tuple[Measurement, ...] = ()
    leans: tuple[Lean, ...] = ()
    tables: tuple[Table, ...] = ()
    figures: tuple[str, ...] = ()
    """Measurements for whose packs t-SNE maps are drawn."""
    notes: tuple[str, ...] = ()
    """Notes for readers of the result."""
    cannot: str = ""
    """The reason why it cannot be made, or "" if it can."""

    @property
    def recipes(self) -> tuple[str, ...]:
        """The recipes of its packs, in build order."""
        names = [name for one in self.measurements for name in (one.recipe, one.on) if name]
        return tuple(dict.fromkeys([*names, *(one.recipe for one in self.leans)]))


def _methods(title: str, rows: str, key: str) -> Table:
    lines = (Line(LABELS[method], rows, method, ("tables", key, method)) for method in PAPER)
    return Table(title, tuple(lines))


def _conditions(title: str, rows: str, key: str) -> Table:
    kinds = ("visual", "textual")
    return Table(title, tuple(Line(kind, rows, f"{LEARNED}@{kind}", ("conditions", key, kind)) for kind in kinds))


def _related(task: str, expert: str) -> Table:
    packs = {"without": "pets", "with": f"pets-{expert}"}
    lines = (
        Line(f"{kind} COCO's {expert}", pack, LEARNED, ("related expert", task, kind), task=task)
        for kind, pack in packs.items()
    )
    return Table(f"{task}, SG-LoRA", tuple(lines))


def _single_and_mixed(dataset: str) -> Table:
    packs = {f"experts of {dataset}": dataset, "experts of all three": "mixed"}
    lines = (
        Line(f"{LABELS[method]}, {label}", rows, method, dataset=dataset)
        for method in (AGAINST, LEARNED)
        for label, rows in packs.items()
    )
    return Table(f"{dataset}: experts of one data set and of three", tuple(lines))


_SPLITS = "the paper's captions and splits are not public, so the tasks differ although the data set is the same"
_OWN_CAPTIONS = "captions of COCO are the data set's own, whereas Qwen2-VL wrote the paper's captions"
_KIN = ("egyptian mau", "pug", "chihuahua")


def _flickr(name: str, table: str, captions: bool = False) -> Measurement:
    source = ("flickr30k", "flickr30k")
    return Measurement(name, "coco", "", source, (), table, (LEARNED,), photos=True, captions=captions)


_RELATED = Target(
    "table3",
    "a related expert of another data set is added (Tables 3 and 10)",
    measurements=(
        Measurement("pets", "pets", tasks=_KIN, methods=FEATURED),
        Measurement("pets-cat", "pets-cat", tasks=("egyptian mau",), methods=FEATURED),
        Measurement("pets-dog", "pets-dog", tasks=("pug", "chihuahua"), methods=FEATURED),
    ),
    tables=(_related("egyptian mau", "cat"), _related("pug", "dog"), _related("chihuahua", "dog")),
    notes=(_SPLITS, "each pack is built again, so that its generator learns with the added expert"),
)
_MAPS = Target(
    "figure7",
    "t-SNE of adapters (Figures 7, 8 and 9), drawn from a pack",
    measurements=(
        Measurement("coco", "coco", methods=FEATURED),
        Measurement("zebra", "coco", tasks=("zebra",), methods=FEATURED),
    ),
    tables=(Table("coco", every="coco"),),
    figures=("coco", "zebra"),
    notes=(
        "a pack has one Oracle adapter per task and its generators as they are at the end of training, so the paper's "
        "maps of training tasks, of 50 Oracle adapters and of several training stages cannot be drawn from it",
    ),
)
_NOT_KNOWN = "its content is unknown to this project"

TARGETS = (
    Target(
        "table1",
        "in-dataset retrieval: COCO and Pets",
        measurements=(Measurement("coco", "coco"), Measurement("pets", "pets")),
        tables=(
            _methods("COCO, experts of COCO", "coco", "coco on coco"),
            _methods("Pets, experts of Pets", "pets", "pets on pets"),
        ),
        notes=(_SPLITS, _OWN_CAPTIONS),
    ),
    Target(
        "table2",
        "cross-dataset retrieval: COCO to Pets, Pets to COCO",
        measurements=(
            Measurement("coco-on-pets", "coco", on="pets"),
            Measurement("pets-on-coco", "pets", on="coco"),
        ),
        tables=(
            _methods("Pets, experts of COCO", "coco-on-pets", "coco on pets"),
            _methods("COCO, experts of Pets", "pets-on-coco", "pets on coco"),
        ),
        notes=(_SPLITS, _OWN_CAPTIONS),
    ),
    _RELATED,
    Target(
        "table4",
        "the experts with the largest weights for Yorkshire Terrier in a mixed-source pack",
        leans=(Lean("yorkshire-terrier", "mixed", "pets", "yorkshire terrier"),),
        tables=(Table("yorkshire terrier: weights of experts", lean="yorkshire-terrier"),),
        notes=("tau is not published: the recipe's is chosen from this table's largest weight",),
    ),
    Target("table5", "Table 5", cannot=_NOT_KNOWN),
    Target(
        "table6",
        "cross-dataset retrieval: COCO to Flowers",
        measurements=(Measurement("coco-on-flowers", "coco", on="flowers"),),
        tables=(_methods("Flowers, experts of COCO", "coco-on-flowers", "coco on flowers"),),
        notes=(_SPLITS, _OWN_CAPTIONS),
    ),
    Target(
        "table7",
        "classification: the superclasses of CIFAR-100",
        measurements=(Measurement("cifar100", "cifar100"),),
        tables=(_methods("CIFAR-100 superclasses", "cifar100", "cifar100 on cifar100"),),
        notes=("which superclass has which role is not published",),
    ),
    Target(
        "table8",
        "classification: two descriptions of a superclass",
        measurements=(
            Measurement("cifar100-template", "cifar100-template", methods=FEATURED),
            Measurement("cifar100", "cifar100", methods=FEATURED),
        ),
        tables=(
            Table(
                "CIFAR-100 superclasses, SG-LoRA",
                (
                    Line("A photo of a <superclass>", "cifar100-template", LEARNED, ("descriptions", "template")),
                    Line("with the classes named", "cifar100", LEARNED, ("descriptions", "with classes")),
                ),
            ),
        ),
        notes=("which superclass has which role is not published",),
    ),
    Target(
        "table9",
        "visual and textual condition: COCO and CIFAR-100",
        measurements=(
            Measurement("coco-condition", "coco", table="ablation-condition", methods=(LEARNED,), photos=True),
            Measurement("cifar100-condition", "cifar100", table="ablation-condition", methods=(LEARNED,), photos=True),
        ),
        tables=(
            _conditions("COCO, SG-LoRA", "coco-condition", "coco"),
            _conditions("CIFAR-100, SG-LoRA", "cifar100-condition", "cifar100"),
        ),
        notes=(
            _SPLITS,
            "visual: the generator was fitted to sentences, but receives the embedding of photos",
            "the table's Flickr30K is in figure2, because its photos must be requested from their publisher",
        ),
    ),
    replace(_RELATED, name="table10"),
    Target("figure1", "Figure 1", cannot=_NOT_KNOWN),
    Target(
        "figure2",
        "Flickr30K, a set without categories (its photos must be requested from their publisher)",
        measurements=(
            _flickr("flickr30k-visual", "ablation-condition"),
            _flickr("flickr30k-textual", "ablation-description", captions=True),
        ),
        tables=(
            Table(
                "Flickr30K, SG-LoRA of COCO's experts",
                (
                    Line("visual", "flickr30k-visual", f"{LEARNED}@visual", ("conditions", "flickr30k", "visual")),
                    Line(
                        "textual", "flickr30k-textual", f"{LEARNED}@sentences", ("conditions", "flickr30k", "textual")
                    ),
                ),
            ),
        ),
        notes=(
            _SPLITS,
            "textual: the mean of the first captions of all training images (captions that are too long are skipped)",
        ),
    ),
    Target(
        "figure3",
        "packs of one data set and of three",
        measurements=tuple(Measurement(name, name, methods=FEATURED) for name in ("coco", "pets", "flowers", "mixed")),
        tables=tuple(_single_and_mixed(name) for name in ("coco", "pets", "flowers")),
        notes=("the paper prints a figure and no numbers",),
    ),
    Target(
        "figure4",
        "the number K of experts in the prior",
        measurements=(Measurement("coco-k", "coco", table="ablation-k", methods=(AGAINST, LEARNED)),),
        tables=(Table("COCO, R@k against K", every="coco-k"),),
        notes=("the paper prints a figure and no numbers; its best K is near 4",),
    ),
    Target("figure5", "Figure 5", cannot=_NOT_KNOWN),
    Target("figure6", "Figure 6", cannot=_NOT_KNOWN),
    _MAPS,
    replace(_MAPS, name="figure8"),
    replace(_MAPS, name="figure9"),
)


def named(name: str) -> Target:
    """Return the table or figure of that name, in any case. Raises UnknownName."""
    known = {target.name: target for target in TARGETS}
    name = name.lower()
    if name not in known:
        raise UnknownName.of("table or figure of the paper", name, known, "sglora reproduce --list")
    return known[name]


def find(name: str) -> Target:
    """Return the table or figure of that name, in any case. Raises UnknownName, Unavailable if it cannot be made."""
    target = named(name)
    if target.cannot:
        raise Unavailable(f"{target.name} cannot be made: {target.cannot}", "see what can: sglora reproduce --list")
    return target
