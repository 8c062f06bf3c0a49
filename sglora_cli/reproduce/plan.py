"""A job -> its steps: which are done, what the others download and how long they take, and what is in the way.

Nothing is downloaded or written. What is in the way is collected, not raised, so that a plan shows all of it at once.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from sglora_cli.bench.paper import PAPER
from sglora_cli.bench.request import BenchRequest
from sglora_cli.bench.rows_file import read_rows
from sglora_cli.config import BenchConfig, CaptionConfig
from sglora_cli.data.caption_cost import estimate, estimate_of, without_model
from sglora_cli.errors import BadFile, SgloraError, Unavailable
from sglora_cli.files.hashes import content_hash
from sglora_cli.files.text import read_json
from sglora_cli.network import hub_unreachable, no_network, offline
from sglora_cli.pack.library import Library
from sglora_cli.pack.pack import Pack
from sglora_cli.pack.recipe import Recipe
from sglora_cli.plugin.contracts import SaysAbsent, SaysDownload, SaysTerms
from sglora_cli.plugin.values import Terms
from sglora_cli.report import plot
from sglora_cli.reproduce.job import Job
from sglora_cli.reproduce.sources import SourceState, source_state
from sglora_cli.reproduce.steps import CAPTIONS, DATA, PACK, PRIOR, REPORT, ROWS, WEIGHTS, Step, with_needed
from sglora_cli.reproduce.targets import Lean, Measurement
from sglora_cli.system import settings
from sglora_cli.system.display import counted
from sglora_cli.system.hardware import free_disk, nearest_existing, pick_device
from sglora_cli.system.paths import cache_folder
from sglora_cli.system.progress import size, span

COMPARISON = "comparison.json"
_HEADER = ("step", "state", "download", "disk", "time")


@dataclass(frozen=True)
class Plan:
    """The steps of a job in the order in which they run."""

    job: Job
    steps: Sequence[Step]
    errors: tuple[SgloraError, ...] = ()
    """What is in the way of no single step: no data folder, too little disk."""

    @property
    def left(self) -> list[Step]:
        """The steps that will run."""
        return [step for step in self.steps if step.left]

    @property
    def missing(self) -> list[SgloraError]:
        """Everything that is in the way, each thing once."""
        parts = [*self.errors, *(error for step in self.left for error in step.errors)]
        return list({(part.message, part.hint): part for one in parts for part in one.parts or (one,)}.values())

    def check(self) -> None:
        """Raises everything that is in the way as one error."""
        if not (missing := self.missing):
            return
        if len(missing) == 1:
            raise missing[0]
        kind = Unavailable if all(isinstance(one, Unavailable) for one in missing) else BadFile
        raise kind.several(f"{len(missing)} things are in the way of {self.job.target.name}", missing)

    def to_lines(self) -> list[str]:
        """The plan for a person."""
        rows = [list(_HEADER), *(step.cells() for step in self.steps)]
        widths = [max(len(row[n]) for row in rows) for n in range(len(_HEADER))]
        table = ["  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows]
        remarks = [f"{step.key}: {remark}" for step in self.steps for remark in step.remarks]
        lines = [f"{self.job.target.name}: {self.job.target.title}", *foreign(self.job), "", *table, ""]
        terms = list(self._terms())
        if terms:
            lines += ["terms of what is downloaded, as its publishers state them:", *(f"  {text}" for text in terms)]
        lines += [*remarks, *self._totals(), f"results: {self.job.folder}"]
        return lines

    def missing_lines(self) -> list[str]:
        """Everything that is in the way, a line each, for a person who is shown the plan alone."""
        lines = [f"  {one.message}" + f" ({one.hint})" * bool(one.hint) for one in self.missing]
        return ["in the way:", *lines] if lines else []

    def _terms(self) -> Iterator[str]:
        for step in self.left:
            for one in step.terms:
                yield f"{self._owner(step)}, {one.what}: {one.licence or 'not stated'} ({one.url})"
            if step.download != 0 and not step.terms:
                yield f"{self._owner(step)}: not known to this program"

    def _owner(self, step: Step) -> str:
        """Whose files a step downloads."""
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
        """The plan as JSON values."""
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
    """What a reader must know where backbone or data are not the paper's."""
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
    """The plan of a job. force: too little memory or disk is not in the way."""
    return _Planner(job, force).plan()


@dataclass(frozen=True)
class _Planner:
    job: Job
    force: bool

    def plan(self) -> Plan:
        steps = [self._cost(step) for step in with_needed(self._steps())]
        errors = (
            [self.job.absent] if self.job.absent and any(s.kind in (DATA, CAPTIONS) and s.left for s in steps) else []
        )
        if not self.force:
            errors += _disk(self.job, steps)
        return Plan(self.job, steps, tuple(errors))

    @cached_property
    def packs(self) -> dict[str, Path]:
        """Recipe of the target -> the folder of its pack, where that is built as the recipe says it."""
        known = {one.name: one.folder for one in Library(self.job.host.recipe_folders).packs()}
        return {
            name: known[recipe.name]
            for name, recipe in self.job.recipes.items()
            if recipe.name in known and _is_of(known[recipe.name], recipe)
        }

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

    # The steps, and whether they are done

    def _steps(self) -> list[Step]:
        job = self.job
        backbones = dict.fromkeys(recipe.backbone for recipe in job.recipes.values())
        steps = [self._weights(name) for name in backbones]
        for name, state in self.states.items():
            dataset = job.data[name][0]
            command = _shell("sglora data fetch", dataset, "--data", job.place)
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
            steps.append(Step(ROWS, one.name, tuple(wanted), _bench_words(job, one), self._rows_done(one)))
        for lean in job.target.leans:
            recipe = job.recipes[lean.recipe]
            needs = (f"{PACK} {recipe.name}", f"{WEIGHTS} {recipe.backbone}")
            command = _shell("sglora generate", f"a photo of a {lean.task}", "--pack", recipe.name, "--explain")
            steps.append(Step(PRIOR, lean.name, needs, command, self._lean_done(lean)))
        parts = [step.key for step in steps if step.kind in (ROWS, PRIOR)]
        pages = [
            _shell("sglora report", job.rows_file(m.name), "-o", job.page(m.name)) for m in job.target.measurements
        ]
        done = all(step.done for step in steps if step.kind in (ROWS, PRIOR)) and _report_done(job)
        return [*steps, Step(REPORT, "", tuple(parts), " && ".join(pages), done)]

    def _weights(self, name: str) -> Step:
        backbone, runtime = self.job.host.backbones[name], settings.runtime(self.job.runtime, name)
        with no_network():
            lacks = backbone.absent(runtime) if isinstance(backbone, SaysAbsent) else ""
        step = Step(WEIGHTS, name, done=not lacks)
        if not lacks:
            return step
        remedy = "pass --weights FILE, or: sglora settings set weights FILE"
        if runtime.weights:
            return replace(step, errors=(Unavailable(f"backbone {name!r}: {lacks}", remedy),))
        if offline():
            error = Unavailable(f"backbone {name!r}: {lacks}, and SGLORA_OFFLINE is set", f"unset it, or {remedy}")
            return replace(step, errors=(error,))
        return replace(step, remarks=(f"{lacks}: they are downloaded",))

    @staticmethod
    def _recipe_word(recipe: Recipe) -> str:
        return recipe.path.stem if recipe.path else recipe.name

    def _replaces(self, name: str, recipe: Recipe) -> tuple[str, ...]:
        if name in self.packs:
            return ()
        known = {one.name: one for one in Library(self.job.host.recipe_folders).packs()}
        if recipe.name not in known or known[recipe.name].origin != "built":
            return ()
        return (f"replaces {known[recipe.name].folder}, a pack of another recipe or of another version of this one",)

    def _rows_done(self, one: Measurement) -> bool:
        key = rows_key(self.job, one, self.packs)
        path = self.job.rows_file(one.name)
        if not key or not path.exists():
            return False
        try:
            return read_rows(path)[-1].header.more.get("reproduce") == key
        except BadFile:
            return False

    def _lean_done(self, lean: Lean) -> bool:
        key, path = lean_key(self.job, lean, self.packs), self.job.lean_file(lean.name)
        with suppress(BadFile):
            return bool(key) and path.exists() and read_json(path).get("reproduce") == key
        return False

    # What the steps that are left cost

    def _cost(self, step: Step) -> Step:
        if not step.left:
            return step
        return {
            WEIGHTS: self._cost_of_weights,
            DATA: self._cost_of_data,
            CAPTIONS: self._cost_of_captions,
            PACK: self._cost_of_pack,
            ROWS: self._cost_of_rows,
            PRIOR: lambda one: one,
            REPORT: self._cost_of_report,
        }[step.kind](step)

    def _cost_of_weights(self, step: Step) -> Step:
        backbone, runtime = self.job.host.backbones[step.name], settings.runtime(self.job.runtime, step.name)
        with no_network():
            download = backbone.download_bytes(runtime) if isinstance(backbone, SaysDownload) else None
        if not step.errors and (why := hub_unreachable()):
            step = replace(step, remarks=(*step.remarks, f"if they come from the Hugging Face hub, that fails: {why}"))
        return replace(
            step, download=download, disk=download, seconds=None, why_unknown=_NETWORK, terms=_terms(backbone)
        )

    def _cost_of_data(self, step: Step) -> Step:
        state = self.states[step.name]
        if state.plan is None:
            return replace(step, download=0, disk=0, seconds=None)
        errors = step.errors
        if state.plan.waiting and offline():
            hint = "unset it, or run the command where there is a network and copy the folder"
            name = self.job.data[step.name][0]
            text = f"data set {name!r} is not in {state.plan.folder}, and SGLORA_OFFLINE is set"
            errors = (*errors, Unavailable(text, f"{step.command}; {hint}"))
        terms = _terms(self.job.host.datasets[self.job.data[step.name][0]])
        return replace(
            step,
            download=state.plan.left,
            disk=state.plan.disk,
            seconds=None,
            why_unknown=_NETWORK,
            terms=terms,
            errors=errors,
        )

    def _cost_of_captions(self, step: Step) -> Step:
        job, name = self.job, self.job.request.captioner
        state = self.states[step.name]
        runtime, count = replace(job.runtime, weights=""), CaptionConfig().captions
        if state.waiting:
            known = estimate(job.host, name, runtime, state.waiting, count)
        else:
            known = estimate_of(job.host, name, runtime, state.photos or 0, count)
        if known is None:
            return replace(step, download=None, disk=None, seconds=None)
        low, high = (one * known.photos for one in known.seconds)
        seconds = (low, high) if state.photos is not None else None
        model = known.cost.model
        remarks = [f"{state.photos:,} photos"] if state.photos is not None else []
        remarks += [f"by {model}" if model else "without a model, which is not how the paper's were written"]
        errors = []
        if known.cost.lacks:
            other = without_model(job.host, name)
            hint = f"pass --captioner {other} for captions of names and colours" if other else ""
            errors = [Unavailable(f"captioner {name!r} lacks {known.cost.lacks}", hint)]
        terms = _terms(job.host.captioners[name]) if known.cost.download_bytes else ()
        return replace(
            step,
            download=known.cost.download_bytes,
            disk=known.cost.download_bytes,
            seconds=seconds,
            terms=terms,
            remarks=(", ".join(remarks),),
            errors=tuple(errors),
        )

    def _cost_of_pack(self, step: Step) -> Step:
        job = self.job
        base, recipe = next((base, one) for base, one in job.recipes.items() if one.name == step.name)
        unknown = replace(step, disk=None, seconds=None)
        if job.absent or not all(self.states[name].ready for name in job.data_of([base])):
            return replace(unknown, why_unknown=_NO_DATA)
        from sglora_cli.build.prerequisites import plan_tasks

        try:
            tasks = plan_tasks(job.host, recipe, job.place, job.runtime)
        except SgloraError as error:
            return replace(unknown, errors=(error,))
        if not self._weights(recipe.backbone).done:
            return replace(unknown, why_unknown="unknown until the weights are here")
        from sglora_cli.build.pipeline import Build

        try:
            found = Build.prepare(job.host, recipe, job.place, runtime=job.runtime, plan=tasks).estimate()
        except SgloraError as error:
            return replace(unknown, errors=(error,))
        errors = []
        if not self.force:
            try:
                found.check()
            except SgloraError as error:
                errors.append(error)
        disk = found.cache_bytes + found.pack_bytes
        return replace(step, disk=disk, seconds=(found.seconds, found.most), errors=tuple(errors))

    def _cost_of_rows(self, step: Step) -> Step:
        one = self.job.part(step.name)
        if not isinstance(one, Measurement) or not {one.recipe, *filter(None, [one.on])} <= set(self.packs):
            return replace(step, seconds=None, why_unknown="unknown until its pack is built")
        if one.captions:
            return replace(step, seconds=None)
        data = [need.removeprefix(f"{DATA} ") for need in step.needs if need.startswith(f"{DATA} ")]
        if not all(self.states[name].ready for name in data):
            return replace(step, seconds=None, why_unknown=_NO_DATA)
        from sglora_cli.bench import run
        from sglora_cli.bench.measure import Measurer
        from sglora_cli.bench.plan import bench_plan

        try:
            plan = bench_plan(self.job.host, bench_request(self.job, one), self.job.config, self.job.runtime)
            low, high = run.estimate(plan, Measurer(plan.model, self.job.runtime.precision))["seconds_range"]
        except SgloraError as error:
            return replace(step, seconds=None, errors=(error,))
        return replace(step, seconds=(low, high))

    def _cost_of_report(self, step: Step) -> Step:
        errors = []
        for module, name in (("matplotlib", "matplotlib"), ("sklearn", "scikit-learn")):
            if module == "sklearn" and not self.job.target.figures:
                continue
            try:
                plot.needs(module, name)
            except SgloraError as error:
                errors.append(error)
        return replace(step, errors=tuple(errors), seconds=None if self.job.target.figures else step.seconds)


_NETWORK = "depends on the network"
_NO_DATA = "unknown until its data are here"


def _terms(plugin: object) -> tuple[Terms, ...]:
    return tuple(plugin.terms()) if isinstance(plugin, SaysTerms) else ()


def _shell(words: str, *more: object) -> str:
    return " ".join([words, *(shlex.quote(str(one)) for one in more)])


def _is_of(folder: Path, recipe: Recipe) -> bool:
    """Whether a pack was built as a recipe says."""
    try:
        return bool(Pack(folder).manifest["recipe"] == json.loads(json.dumps(recipe.raw)))
    except SgloraError:
        return False


def _disk(job: Job, steps: Sequence[Step]) -> list[SgloraError]:
    """Whether a disk is too small for what all steps bring together."""
    needed: dict[int, tuple[Path, int]] = {}
    for step in steps:
        if step.left and step.disk:
            path = job.place if step.kind == DATA else cache_folder()
            device = nearest_existing(path).stat().st_dev
            needed[device] = (path, needed.get(device, (path, 0))[1] + step.disk)
    hint = "make room, name another data folder with --data, or move the cache with SGLORA_HOME; --force tries"
    return [
        Unavailable(f"{size(count)} are needed on the disk of {path}, {size(free_disk(path))} are free", hint)
        for path, count in needed.values()
        if count > free_disk(path)
    ]


def rows_key(job: Job, one: Measurement, packs: Mapping[str, Path]) -> str:
    """A hash of everything that rows follow from; "" as long as a pack is missing."""
    names = [name for name in (one.recipe, one.on) if name]
    if not set(names) <= set(packs):
        return ""
    manifests = [Pack(packs[name]).manifest for name in names]
    asked = [one.table, list(one.methods), list(job.measured(one)), list(one.source), one.photos, one.captions]
    return content_hash("reproduce 1", manifests, asked, job.settings_of_rows())


def lean_key(job: Job, lean: Lean, packs: Mapping[str, Path]) -> str:
    """The same of the experts that a sentence leans on."""
    if lean.recipe not in packs:
        return ""
    return content_hash("reproduce 1", Pack(packs[lean.recipe]).manifest, lean.dataset, lean.task)


def report_key(job: Job) -> str:
    """A hash of what a report follows from, as far as it is here."""
    files = [job.rows_file(one.name) for one in job.target.measurements]
    files += [job.lean_file(one.name) for one in job.target.leans]
    return content_hash(
        [path.read_text(encoding="utf-8") if path.exists() else "" for path in files], job.config.resamples
    )


def _report_done(job: Job) -> bool:
    pages = [job.page(one.name) for one in job.target.measurements]
    path = job.folder / COMPARISON
    try:
        known = read_json(path) if path.exists() else {}
        return known.get("key") == report_key(job) and all(page.exists() for page in pages)
    except (BadFile, AttributeError, OSError):
        return False


def bench_request(job: Job, one: Measurement) -> BenchRequest:
    """What `sglora bench` would be asked for."""
    dataset, _ = one.source
    return BenchRequest(
        baselines="paper" if one.methods == PAPER else ",".join(one.methods),
        pack=job.recipes[one.recipe].name,
        on=job.recipes[one.on].name if one.on else "",
        dataset=dataset,
        data=job.place if one.photos else None,
        tasks=",".join(job.measured(one)),
        table=one.table,
        sentences=job.sentences_file(one.name) if one.captions else None,
    )


def _bench_words(job: Job, one: Measurement) -> str:
    request = bench_request(job, one)
    options = {
        "--baselines": request.baselines,
        "--on": request.on,
        "--dataset": request.dataset,
        "--data": request.data,
        "--tasks": request.tasks,
        "--table": "" if request.table == "all" else request.table,
        "--sentences": request.sentences or "",
        **_changed(job.config),
        "--rows": job.rows_file(one.name),
    }
    words = [str(word) for name, value in options.items() if value not in ("", None) for word in (name, value)]
    return shlex.join(["sglora", "bench", "--pack", request.pack, *words])


def _changed(config: BenchConfig) -> dict[str, Any]:
    """The options that differ from their defaults."""
    values = ((spec.name, getattr(config, spec.name), spec.default) for spec in fields(config))
    return {f"--{name.replace('_', '-')}": value for name, value, default in values if value != default}
