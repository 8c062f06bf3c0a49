"""Plan a job: its steps, their state, downloads, times and problems.

Planning downloads and writes nothing. Problems are collected, not raised, so that a plan shows all of them at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from sglora_cli.errors import BadFile, SgloraError, Unavailable
from sglora_cli.files.escape import shell_word
from sglora_cli.pack.library import Library
from sglora_cli.pack.recipe import Recipe
from sglora_cli.plugin.contracts import Fetches
from sglora_cli.reproduce.costs import Costs, lacking_weights
from sglora_cli.reproduce.job import Job
from sglora_cli.reproduce.keys import built_packs, lean_done, report_done, rows_done
from sglora_cli.reproduce.requests import bench_command
from sglora_cli.reproduce.sources import SourceState, source_state
from sglora_cli.reproduce.steps import CAPTIONS, DATA, PACK, PRIOR, REPORT, ROWS, WEIGHTS, Step, with_needed
from sglora_cli.system import settings
from sglora_cli.system.display import counted
from sglora_cli.system.hardware import free_disk, nearest_existing, pick_device
from sglora_cli.system.paths import cache_folder
from sglora_cli.system.progress import size, span

_HEADER = ("step", "state", "download", "disk", "time")


@dataclass(frozen=True)
class Plan:
    """The steps of a job in the order in which they run."""

    job: Job
    steps: Sequence[Step]
    errors: tuple[SgloraError, ...] = ()
    """Problems that concern no single step, such as a missing data folder or too little disk space."""

    @property
    def left(self) -> list[Step]:
        """The steps that are still to run."""
        return [step for step in self.steps if step.left]

    @property
    def missing(self) -> list[SgloraError]:
        """All problems that prevent the run, without duplicates."""
        parts = [*self.errors, *(error for step in self.left for error in step.errors)]
        return list({(part.message, part.hint): part for one in parts for part in one.parts or (one,)}.values())

    def check(self) -> None:
        """Raise one error that lists all problems, if there are any."""
        if not (missing := self.missing):
            return
        if len(missing) == 1:
            raise missing[0]
        kind = Unavailable if all(isinstance(one, Unavailable) for one in missing) else BadFile
        raise kind.several(f"{len(missing)} problems prevent {self.job.target.name}", missing)

    def to_lines(self) -> list[str]:
        """Return the plan as lines of text."""
        rows = [list(_HEADER), *(step.cells() for step in self.steps)]
        widths = [max(len(row[n]) for row in rows) for n in range(len(_HEADER))]
        table = ["  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows]
        remarks = [f"{step.key}: {remark}" for step in self.steps for remark in step.remarks]
        lines = [f"{self.job.target.name}: {self.job.target.title}", *foreign(self.job), "", *table, ""]
        terms = list(self._terms())
        if terms:
            lines += ["terms of the downloads, as their publishers state them:", *(f"  {text}" for text in terms)]
        lines += [*remarks, *self._totals(), f"results: {self.job.folder}"]
        return lines

    def missing_lines(self) -> list[str]:
        """Return all problems, one per line, for a plan that is only printed."""
        lines = [f"  {one.message}" + f" ({one.hint})" * bool(one.hint) for one in self.missing]
        return ["problems:", *lines] if lines else []

    def _terms(self) -> Iterator[str]:
        for step in self.left:
            for one in step.terms:
                yield f"{self._owner(step)}, {one.what}: {one.licence or 'not stated'} ({one.url})"
            if step.download != 0 and not step.terms:
                yield f"{self._owner(step)}: not known to this program"

    def _owner(self, step: Step) -> str:
        """Return the owner of the files that a step downloads."""
        return self.job.request.captioner if step.kind == CAPTIONS else step.name

    def _totals(self) -> list[str]:
        if not self.left:
            return ["everything is done"]
        known = sum(step.download or 0 for step in self.left)
        unknown = any(step.download is None for step in self.left)
        download = f"{size(known) if known else 'nothing'}{' and what is unknown' * unknown}"
        times = [step.seconds for step in self.left if step.seconds]
        time = span(sum(low for low, _ in times), sum(high for _, high in times)) if any(map(sum, times)) else "seconds"
        if open_ends := sum(step.seconds is None for step in self.left):
            known_part = f"{time} and " * any(high for _, high in times)
            time = f"{known_part}{counted(open_ends, 'step')} whose time is unknown"
        return [f"to download: {download}", f"time: {time}, on {_device(self.job)}"]

    def to_json(self) -> dict[str, Any]:
        """Return the plan as JSON values."""
        return {
            "target": self.job.target.name,
            "title": self.job.target.title,
            "with": self.job.request.family or None,
            "comparable": self.job.is_the_papers,
            "folder": str(self.job.folder),
            "steps": [step.to_json() for step in self.steps],
            "missing": [one.to_json()["error"] for one in self.missing],
        }


def foreign(job: Job) -> list[str]:
    """Return the warning for a job whose backbone or data differ from the paper's."""
    if job.is_the_papers:
        return []
    parts = []
    if job.request.family:
        backbones = sorted({recipe.backbone for recipe in job.recipes.values()})
        parts = [f"backbone {', '.join(backbones)}", "data that are not the paper's"]
    if limit := job.request.limit:
        parts.append("the first task of each role" if limit == 1 else f"the first {limit} tasks of each role")
    return [f"not comparable: {', '.join(parts)}. The numbers say nothing about the paper's."]


def _device(job: Job) -> str:
    name = str(pick_device(job.runtime.device or settings.device_of_settings()))
    return "the CPU of this machine, which has no GPU in use" if name == "cpu" else name


def plan_of(job: Job, force: bool = False) -> Plan:
    """Plan a job. With `force`, too little memory or disk space does not count as a problem."""
    return _Planner(job, force).plan()


@dataclass(frozen=True)
class _Planner:
    job: Job
    force: bool

    def plan(self) -> Plan:
        costs = Costs(self.job, self.force, self.packs, self.states)
        steps = _captioner_once([costs.of(step) for step in with_needed(self._steps())])
        errors = (
            [self.job.absent] if self.job.absent and any(s.kind in (DATA, CAPTIONS) and s.left for s in steps) else []
        )
        if not self.force:
            errors += _disk(self.job, steps)
        return Plan(self.job, steps, tuple(errors))

    @cached_property
    def packs(self) -> dict[str, Path]:
        """Recipe of the target -> the folder of its pack, of those that are built."""
        return built_packs(self.job)

    @cached_property
    def states(self) -> dict[str, SourceState]:
        """What is here of each data set, by what steps call it."""
        job = self.job
        return {
            name: source_state(
                dataset, job.host.datasets[dataset], job.root(name), job.place, job.fetching(name).exists()
            )
            for name, (dataset, _) in job.data.items()
        }

    def _steps(self) -> list[Step]:
        job = self.job
        backbones = dict.fromkeys(recipe.backbone for recipe in job.recipes.values())
        steps = [Step(WEIGHTS, name, done=not lacking_weights(job, name)) for name in backbones]
        for name, state in self.states.items():
            dataset = job.data[name][0]
            fetches = isinstance(job.host.datasets[dataset], Fetches)
            command = _shell("sglora data fetch", dataset, "--data", job.place) if fetches else ""
            data = Step(DATA, name, (), command, state.here and not state.errors)
            steps.append(replace(data, errors=state.errors, remarks=state.remarks))
            if not state.captioned:
                command = _shell("sglora data caption", dataset, "--path", job.root(name))
                command += _shell(" --captioner", job.request.captioner)
                steps.append(Step(CAPTIONS, name, (data.key,), command))
        captions = {step.name for step in steps if step.kind == CAPTIONS}

        def of_data(sources: Sequence[str]) -> tuple[str, ...]:
            return tuple(f"{kind} {name}" for name in sources for kind in (DATA, *[CAPTIONS] * (name in captions)))

        for name, recipe in job.recipes.items():
            needs = (f"{WEIGHTS} {recipe.backbone}", *of_data(job.data_of([name])))
            command = _shell("sglora pack build", self._recipe_word(recipe), "--data", job.place)
            command += f" --limit {job.request.limit}" * bool(job.request.limit)
            step = Step(PACK, recipe.name, needs, command, name in self.packs)
            steps.append(replace(step, remarks=self._replaces(name, recipe)))
        for one in job.target.measurements:
            wanted = [f"{PACK} {job.recipes[name].name}" for name in (one.recipe, one.on) if name]
            wanted.append(f"{WEIGHTS} {job.recipes[one.recipe].backbone}")
            if one.source[0]:
                wanted += of_data([name for name, pair in job.data.items() if pair == one.source])
            elif one.photos:
                wanted += of_data(job.data_of([one.recipe]))
            steps.append(Step(ROWS, one.name, tuple(wanted), bench_command(job, one), rows_done(job, one, self.packs)))
        for lean in job.target.leans:
            recipe = job.recipes[lean.recipe]
            needs = (f"{PACK} {recipe.name}", f"{WEIGHTS} {recipe.backbone}")
            command = _shell("sglora generate", f"a photo of a {lean.task}", "--pack", recipe.name, "--explain")
            steps.append(Step(PRIOR, lean.name, needs, command, lean_done(job, lean, self.packs)))
        parts = [step.key for step in steps if step.kind in (ROWS, PRIOR)]
        pages = [
            _shell("sglora report", job.rows_file(m.name), "-o", job.page(m.name)) for m in job.target.measurements
        ]
        done = all(step.done for step in steps if step.kind in (ROWS, PRIOR)) and report_done(job)
        return [*steps, Step(REPORT, "", tuple(parts), " && ".join(pages), done)]

    @staticmethod
    def _recipe_word(recipe: Recipe) -> str:
        return recipe.path.stem if recipe.path else recipe.name

    def _replaces(self, name: str, recipe: Recipe) -> tuple[str, ...]:
        if name in self.packs:
            return ()
        known = {one.name: one for one in Library(self.job.host.recipe_folders).packs()}
        if recipe.name not in known or known[recipe.name].origin != "built":
            return ()
        return (f"replaces {known[recipe.name].folder}, which was built from a different recipe or version of it",)


def _captioner_once(steps: Sequence[Step]) -> list[Step]:
    """The steps, of which only the first that writes captions downloads the captioner."""
    first = next((step.key for step in steps if step.kind == CAPTIONS and step.left), "")
    return [
        replace(step, download=0, disk=0, terms=()) if step.kind == CAPTIONS and step.key != first else step
        for step in steps
    ]


def _shell(words: str, *more: object) -> str:
    return " ".join([words, *(shell_word(one) for one in more)])


def _disk(job: Job, steps: Sequence[Step]) -> list[SgloraError]:
    """Check whether each disk has enough space for all steps together."""
    needed: dict[int, tuple[Path, int]] = {}
    for step in steps:
        if step.left and step.disk:
            path = job.place if step.kind == DATA else cache_folder()
            device = nearest_existing(path).stat().st_dev
            needed[device] = (path, needed.get(device, (path, 0))[1] + step.disk)
    hint = "free some space, pass another --data DIR, move the cache with SGLORA_HOME, or start anyway with --force"
    return [
        Unavailable(f"{size(count)} are needed on the disk of {path}, but only {size(free_disk(path))} are free", hint)
        for path, count in needed.values()
        if count > free_disk(path)
    ]
