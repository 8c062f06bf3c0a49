"""SemLA: weigh the experts by the similarity of test images to their training photos.

Shapes: E experts, S samples, N images, D embedding, P parameters of an adapter.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from sglora_cli.api import Evidence, Experts, Mismatch, Prior, Unavailable, mix, select

from .rule import SemlaRule


@dataclass(frozen=True)
class ByImages:
    """SemLA over the experts of one pack."""

    rule: SemlaRule
    experts: Experts

    def generate(self, prior: Prior, samples: int, seed: int, temperature: float) -> Tensor:
        raise Unavailable(
            "'semla' needs the query images and cannot use a sentence alone",
            "measure it with `sglora bench --baselines semla,semla-task`; "
            "`sglora generate --images DIR` accepts photos instead of a description",
        )

    def generate_with(self, prior: Prior, evidence: Evidence, samples: int, seed: int, temperature: float) -> Tensor:
        """Generate (S, N, P), or (S, P) with one merge per task. All samples are equal."""
        if evidence.images_ND is None or evidence.visual_ED is None:
            raise Mismatch("semla needs images, got none")
        images_ND = evidence.images_ND
        if self.rule.per == "task":
            images_ND = torch.nn.functional.normalize(images_ND.double().mean(dim=0, keepdim=True), dim=1).float()
        means_EP = self.experts.means()
        merged_NP = torch.stack([mix(w, means_EP[list(rows)]) for rows, w in weights(self.rule, images_ND, evidence)])
        merged = merged_NP if self.rule.per == "image" else merged_NP[0]
        return merged.expand(samples, *merged.shape)

    def tensors(self) -> dict[str, Tensor]:
        return {}


def weights(rule: SemlaRule, images_ND: Tensor, evidence: Evidence) -> Iterator[tuple[tuple[int, ...], Tensor]]:
    """Yield the nearest experts of each image and their weights."""
    assert evidence.visual_ED is not None
    similarity_NE = (images_ND.double() @ evidence.visual_ED.double().T).float()
    for similarity_E in similarity_NE:
        yield select(similarity_E, min(rule.k, len(similarity_E)), rule.tau)
