"""The costs of unfinished steps on this machine: bytes, time, terms and problems.

Nothing is downloaded or written.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from sglora_cli.config import CaptionConfig
from sglora_cli.data.caption_cost import estimate, estimate_of, without_model
from sglora_cli.errors import SgloraError, Unavailable
from sglora_cli.network import hub_unreachable, no_network, offline
from sglora_cli.plugin.contracts import SaysAbsent, SaysDownload, SaysTerms
from sglora_cli.plugin.values import Terms
from sglora_cli.report import plot
from sglora_cli.reproduce.job import Job
from sglora_cli.reproduce.requests import bench_request
from sglora_cli.reproduce.sources import SourceState
from sglora_cli.reproduce.steps import CAPTIONS, DATA, PACK, PRIOR, REPORT, ROWS, WEIGHTS, Step
from sglora_cli.reproduce.targets import Measurement
from sglora_cli.system import settings

_NETWORK = "depends on the network"
_NO_DATA = "unknown until its data are here"
_FEW = 4
"""Errors of one recipe that are all listed."""


def lacking_weights(job: Job, name: str) -> str:
    """Return which weights of a backbone are missing on this machine, or "" if none."""
    backbone, runtime = job.host.backbones[name], settings.runtime(job.runtime, name)
    with no_network():
        return backbone.absent(runtime) if isinstance(backbone, SaysAbsent) else ""


@dataclass(frozen=True)
class Costs:
    """The costs of a job's steps, as far as they are known."""

    job: Job
    force: bool
    """Whether to ignore a lack of memory."""
    packs: Mapping[str, Path]
    """The target's recipes mapped to the folders of their built packs."""
    states: Mapping[str, SourceState]
    """The state of each data set, by the name that steps use."""

    def of(self, step: Step) -> Step:
        """Return the step with its costs."""
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
        lacks, remedy = (
            lacking_weights(self.job, step.name),
            "pass --weights FILE, or: sglora settings set weights FILE",
        )
        errors, remarks = [], []
        if runtime.weights:
            errors.append(Unavailable(f"backbone {step.name!r}: {lacks}", remedy))
        elif offline():
            text = f"backbone {step.name!r}: {lacks}, and SGLORA_OFFLINE is set"
            errors.append(Unavailable(text, f"unset it, or {remedy}"))
        else:
            remarks.append(f"{lacks}, so they are downloaded")
            if why := hub_unreachable():
                remarks.append(f"a download from the Hugging Face hub would fail: {why}")
        return replace(
            step,
            download=download,
            disk=download,
            seconds=None,
            why_unknown=_NETWORK,
            terms=_terms(backbone),
            remarks=tuple(remarks),
            errors=tuple(errors),
        )

    def _cost_of_data(self, step: Step) -> Step:
        state = self.states[step.name]
        if state.plan is None:
            return replace(step, download=0, disk=0, seconds=None)
        errors = step.errors
        if state.plan.waiting and offline():
            hint = "unset it, or run the command on a machine with a network and copy the folder"
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
        remarks += [f"by {model}" if model else "without a model, unlike the paper's captions"]
        errors = []
        if known.cost.lacks:
            other = without_model(job.host, name)
            hint = f"pass --captioner {other} for captions of names and colours" if other else ""
            errors = [Unavailable(f"captioner {name!r} cannot be used: {known.cost.lacks}", hint)]
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
            lacks = lacking_weights(job, recipe.backbone)
            return replace(unknown, errors=(_summary(error, recipe.name, step.command, lacks),))
        if lacking_weights(job, recipe.backbone):
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


def _summary(error: SgloraError, recipe: str, command: str, lacks: str) -> SgloraError:
    """Shorten the errors of a recipe, of which there may be one for each of its tasks.

    lacks: the missing weights, which have a step of their own.
    """
    parts = [part for part in error.parts if not (lacks and lacks in part.message)]
    if len(parts) <= _FEW:
        return error
    text = f"recipe {recipe!r} has {len(parts)} errors with this data. The first is: {parts[0].message}"
    return type(error)(text, f"list all of them: {command} --dry-run")


def _terms(plugin: object) -> tuple[Terms, ...]:
    return tuple(plugin.terms()) if isinstance(plugin, SaysTerms) else ()
