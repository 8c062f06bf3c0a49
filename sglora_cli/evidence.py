"""What a method may see of an unseen task besides its sentence, and whether it is at hand.

Shapes: S samples, N images, P numbers of an adapter.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from sglora_cli.contracts import Evidence, Fitted, Generator, Model
from sglora_cli.descriptions import image_embeddings
from sglora_cli.errors import PluginError, Unavailable
from sglora_cli.packs import Pack, UnseenTask
from sglora_cli.semantics import Prior

SHOTS, IMAGES = "shots", "images"


def need(generator: Generator) -> str:
    """SHOTS, IMAGES, or "" for a generator that is content with the sentence. Raises PluginError for another word."""
    found: str = getattr(generator, "needs", "")
    if found not in ("", SHOTS, IMAGES):
        raise PluginError(
            f"generator {generator.name!r} needs {found!r}, which nobody knows", "it must be shots or images"
        )
    return found


def lack(pack: Pack, generator: Generator, tasks: Sequence[UnseenTask]) -> Unavailable | None:
    """Why a generator cannot be asked about tasks; None if it can, or if it needs nothing."""
    needs = need(generator)
    if needs == SHOTS and any(task.training is None for task in tasks):
        message = f"{generator.name!r} needs training photos of the unseen tasks, which no pack carries"
        return Unavailable(message, "name the folder of the photos: --data DIR")
    if needs == IMAGES and not pack.has_visual:
        message = f"{generator.name!r} compares photos, and pack {pack.name!r} does not know what its experts look like"
        return Unavailable(message, "build the pack again")
    try:
        if needs:
            pack.fitted(generator)
    except Unavailable as error:
        return error
    return None


class Witness:
    """Evidence of one task, each kind looked at once, and only if a method needs it."""

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
            raise Unavailable(f"there are no training photos of {self._task.name!r}", "name their folder: --data DIR")
        return Evidence(self._model, shots=self._task.training())

    def ask(
        self, generator: Generator, fitted: Fitted, prior: Prior, samples: int, seed: int, temperature: float
    ) -> Tensor:
        """Adapters of any generator: (S, P), or (S, N, P) where each image has its own."""
        needs = need(generator)
        if not needs:
            return fitted.generate(prior, samples, seed, temperature)
        informed: Any = fitted
        return informed.generate_with(prior, self.evidence(needs), samples, seed, temperature)
