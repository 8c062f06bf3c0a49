"""Data that methods use or have seen: photos of an unseen task, and the pack's training tasks.

Shapes: N images, S samples, P parameters of an adapter.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sglora_cli.data.encode import image_embeddings
from sglora_cli.errors import PluginError, SgloraError, Unavailable
from sglora_cli.lora.prior import Prior
from sglora_cli.pack.content.evaluation import UnseenTask
from sglora_cli.pack.loaded import LoadedPack
from sglora_cli.pack.pack import Pack
from sglora_cli.plugin.combined import Combined
from sglora_cli.plugin.contracts import IMAGES, SHOTS, Evidence, Fitted, Generator, Model, UsesEvidence
from sglora_cli.plugin.values import Experts, Moments


def lack(pack: Pack, generator: Generator, tasks: Sequence[UnseenTask]) -> Unavailable | None:
    """Return why a generator cannot be used on these tasks, or None if it can."""
    if generator.needs == SHOTS and any(task.training is None for task in tasks):
        message = f"{generator.name!r} needs training photos of the unseen tasks, which packs do not contain"
        return Unavailable(message, "pass the folder of the photos with --data DIR")
    if generator.needs == IMAGES and not pack.has_visual:
        message = f"{generator.name!r} compares photos, but pack {pack.name!r} has no visual embeddings of its experts"
        return Unavailable(message, "rebuild the pack: sglora pack build RECIPE --data DIR")
    try:
        if generator.needs or not generator.learns:
            pack.fitted(generator)
    except Unavailable as error:
        return error
    return None


def saw_training(loaded: LoadedPack, name: str) -> bool:
    """Return whether a method has seen the pack's training tasks.

    A method has if it was fitted to them, or if it uses the joint adapter or the moments, which were fitted to them.
    A method made from the experts alone works without moments, and its result does not change if the joint adapter
    is NaN.
    """
    generator, pack = loaded.host.generators[name], loaded.pack
    if isinstance(generator, Combined):
        return any(saw_training(loaded, part.name) for part in generator.parts)
    if generator.learns or generator.needs:
        return generator.learns and name in pack.manifest["generators"]
    try:
        blind = generator.restore(_Blind(pack.experts), {"joint": torch.full((pack.layout.size,), torch.nan)})
        flat_SP = blind.generate(pack.prior(pack.expert_query(0)), 1, 0, 1.0)
    except SgloraError:
        return True
    return not bool(torch.isfinite(flat_SP).all())


class _Blind:
    """Experts without any information from the training tasks."""

    moments: Moments | None = None

    def __init__(self, experts: Experts) -> None:
        self.names, self.layout = experts.names, experts.layout
        self.means, self.variances = experts.means, experts.variances


class TaskEvidence:
    """Evidence of one task. Each kind is computed once, and only if a method needs it."""

    def __init__(self, model: Model, pack: Pack, task: UnseenTask) -> None:
        self._model, self._pack, self._task = model, pack, task
        self._seen: dict[str, Evidence] = {}

    def evidence(self, needs: str) -> Evidence:
        if needs not in self._seen:
            self._seen[needs] = self._look(needs)
        return self._seen[needs]

    def _look(self, needs: str) -> Evidence:
        if needs == IMAGES:
            image_ND = image_embeddings(self._model, self._task.tensors.stem_N)
            return Evidence(self._model, images_ND=image_ND, visual_ED=self._pack.visual_ED)
        if self._task.training is None:
            raise Unavailable(f"there are no training photos of {self._task.name!r}", "pass the folder with --data DIR")
        return Evidence(self._model, shots=self._task.training())

    def ask(
        self, generator: Generator, fitted: Fitted, prior: Prior, samples: int, seed: int, temperature: float
    ) -> Tensor:
        """Make adapters with any generator: (S, P), or (S, N, P) if each image has its own."""
        if not generator.needs:
            return fitted.generate(prior, samples, seed, temperature)
        if not isinstance(fitted, UsesEvidence):
            raise PluginError(f"generator {generator.name!r} declares that it needs data but has no generate_with")
        return fitted.generate_with(prior, self.evidence(generator.needs), samples, seed, temperature)
