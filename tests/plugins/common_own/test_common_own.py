"""Common and own: that each part does its work where there is something to do, and that they know each other."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from worlds import EXPERTS, TASKS, UNSEEN, World

from sglora_cli.errors import BadFile, Mismatch, Unavailable
from sglora_cli.lora.layout import Layout
from sglora_cli.lora.removal import removal
from sglora_cli.plugin.testing.toys import LAYOUT, ToyExperts, ToyPool, material
from sglora_common_own import CommonOwn

GENERATOR = CommonOwn()
QUICK = {"steps": 150, "tasks": 8, "learning_rate": 0.05, "size": 1.0, "strength": 1.0, "subtracted": 0.0}


@pytest.fixture(scope="module")
def learned():
    """A world, and what was fitted to it."""
    world = World(own=0.0)
    return world, *GENERATOR.fit(world.material(), QUICK)


def test_each_part_brings_the_adapters_of_unseen_tasks_closer_to_the_best_at_its_sites(learned):
    world, fitted, facts = learned
    unseen = ToyPool(world, range(EXPERTS + TASKS, EXPERTS + TASKS + UNSEEN))
    flat_TP, size = fitted.adapters(unseen.sentences_TD), len(fitted.common_P)

    def losses(sites, made_TP):
        """With the part, and without any."""
        layout = Layout(sites, 2, 2.0)
        nothing_TP = layout.initial(0).expand(UNSEEN, -1)
        rng = torch.Generator()
        return [float(unseen.losses(layout, x_TP, range(UNSEEN), 3, rng).mean()) for x_TP in (made_TP, nothing_TP)]

    common, nothing = losses(LAYOUT.sites, flat_TP[:, :size])
    assert common < 0.95 * nothing
    own, nothing = losses(fitted.own_layout.sites[-1:], flat_TP[:, size:])
    assert own < 0.7 * nothing
    assert facts["loss"] < facts["loss_at_start"]
    assert facts["trained_on"] == {"tasks": EXPERTS + TASKS, "phrases": 0}


def test_own_is_the_closed_form_on_photos_with_the_common_part(learned):
    world, fitted, _ = learned
    common, seen = Layout(LAYOUT.sites, 2, 2.0), world.material().pool
    moments = replace(seen.moments, images_TD=seen.mean_images(common, fitted.common_P))
    b, a = removal(moments, world.sentence_TD[-1:], strength=1.0, common=0.0)
    flat_1P = fitted.adapters(world.sentence_TD[-1:])
    found_b, found_a = fitted.own_layout.split(flat_1P)["head"]
    torch.testing.assert_close(found_b @ found_a, (b @ a).float(), rtol=1e-4, atol=1e-5)


def test_size_multiplies_the_trained_update():
    toy = material(ToyExperts())
    whole, half = (GENERATOR.fit(toy, {**QUICK, "steps": 20, "size": size})[0].common_P for size in (1.0, 0.5))
    common = Layout(LAYOUT.sites, 2, 2.0)
    assert float(common.update_norm(half[None])) == pytest.approx(
        0.5 * float(common.update_norm(whole[None])), rel=1e-5
    )


def test_it_is_refused_where_it_cannot_be():
    toy = material(ToyExperts())

    class Bare(ToyPool):
        @property
        def moments(self):
            return replace(super().moments, projection=None)

    with pytest.raises(Unavailable, match="this backbone has none"):
        GENERATOR.fit(replace(toy, pool=Bare(toy.experts)), {})
    with pytest.raises(Mismatch, match="common-own needs at least 2 seen tasks, got 1"):
        GENERATOR.fit(replace(toy, pool=ToyPool(toy.experts, [0])), {})

    class Broken(ToyPool):
        def losses(self, layout, adapters_TP, *rest):
            return super().losses(layout, adapters_TP, *rest) * torch.inf

    with pytest.raises(Mismatch, match="training of common-own diverged: the loss is inf in step 1"):
        GENERATOR.fit(replace(toy, pool=Broken(toy.experts)), {})


@pytest.mark.parametrize("name", ["common", "seen.projection_DI", "seen.images_TD", "how", "seen.site"])
def test_a_damaged_file_is_refused(learned, name):
    _, fitted, _ = learned
    experts, whole = ToyExperts(), fitted.tensors()
    with pytest.raises(BadFile):
        GENERATOR.restore(experts, {key: tensor for key, tensor in whole.items() if key != name})
    with pytest.raises(BadFile):
        GENERATOR.restore(experts, {**whole, name: torch.zeros(3)})


def test_the_estimate_counts_numbers_and_photos():
    _, facts = GENERATOR.fit(material(ToyExperts()), {**QUICK, "steps": 2})
    needs = GENERATOR.cost(LAYOUT, 6, 5, {"steps": 7, "tasks": 3, "photos": 5})
    assert needs["parameters"] == facts["parameters"]
    assert needs["passes"] == 7 * 3 * 5
