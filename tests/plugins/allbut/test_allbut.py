"""All-but-the-task: its update is the formula of its docstring, on moments that were predicted another way."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from sglora_allbut import AllButConfig, sglora_generators
from sglora_cli.api import Mismatch, Moments, Site, Unavailable, UnknownName, UsageError
from sglora_cli.bench.retrieval import hits
from sglora_cli.plugin.testing.toys import ToyExperts

TASKS, EMBED, WIDTH = 9, 12, 16
TASK, SENTENCE = sglora_generators()


def units(*shape: int, seed: int) -> torch.Tensor:
    return F.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=-1)


MOMENTS = Moments(
    tuple(f"toys/{t}" for t in range(TASKS)),
    units(TASKS, EMBED, seed=0),
    0.7 * units(TASKS, EMBED, seed=1),
    0.8 * units(TASKS, EMBED, seed=2),
    Site("head", EMBED, WIDTH),
    torch.randn(EMBED, WIDTH, generator=torch.Generator().manual_seed(3)),
    torch.randn(WIDTH, generator=torch.Generator().manual_seed(4)),
)


def experts(moments: Moments | None = MOMENTS) -> ToyExperts:
    given = ToyExperts()
    given.moments = moments
    return given


def asked(embedding_D: torch.Tensor):
    """A prior of this sentence. What it says of the experts does not matter."""
    return replace(ToyExperts().prior(0), embedding_D=embedding_D)


def update(generator, embedding_D: torch.Tensor) -> np.ndarray:
    """B A (D, I) of the adapter."""
    fitted = generator.restore(experts(), {})
    flat_SP = fitted.generate(asked(embedding_D), 2, 0, 1.0)
    assert torch.equal(flat_SP[0], flat_SP[1])
    b_DR, a_RI = fitted.own_layout.split(flat_SP[0])["head"]
    return (fitted.own_layout.scaling * b_DR.double() @ a_RI.double()).numpy()


def ridge(sentence_D: np.ndarray, moment_TD: torch.Tensor, ridge: float) -> np.ndarray:
    """The prediction by ridge regression in its primal form: coefficients (D, D)."""
    x, y = MOMENTS.sentences_TD.double().numpy(), moment_TD.double().numpy()
    centred = x - x.mean(0)
    coefficients = np.linalg.inv(centred.T @ centred + ridge * np.eye(EMBED)) @ centred.T @ (y - y.mean(0))
    return y.mean(0) + (sentence_D - x.mean(0)) @ coefficients


@pytest.mark.parametrize("strength", [0.25, 0.8, 1.0])
def test_the_update_takes_the_predicted_captions_direction_out_of_every_image(strength):
    sentence_D, w_DI = units(EMBED, seed=9), MOMENTS.projection_DI.double().numpy()
    found_DI = update(TASK.member(f"strength={strength}/common=0/sentence=0"), sentence_D)
    u = ridge(sentence_D.double().numpy(), MOMENTS.captions_TD, 0.3)
    u /= np.linalg.norm(u)
    for p in np.random.default_rng(0).standard_normal((5, WIDTH)):
        v = w_DI @ p
        assert (w_DI + found_DI) @ p == pytest.approx(v - strength * u * (u @ v), abs=1e-5)
    if strength == 1.0:
        assert u @ (w_DI + found_DI) == pytest.approx(np.zeros(WIDTH), abs=1e-5)


def test_common_subtracts_the_predicted_mean_image_from_images_of_any_length():
    sentence_D, w_DI = units(EMBED, seed=9), MOMENTS.projection_DI.double().numpy()
    found_DI = update(TASK.member("strength=0.5/common=0.7/sentence=0"), sentence_D)
    u, c = (ridge(sentence_D.double().numpy(), m, 0.3) for m in (MOMENTS.captions_TD, MOMENTS.images_TD))
    u /= np.linalg.norm(u)
    r = MOMENTS.length_I.double().numpy()
    for p in np.random.default_rng(0).standard_normal((5, WIDTH)):
        p += (np.linalg.norm(w_DI @ p) - r @ p) * r / (r @ r)  # now nearly so: r . p is the length of W p
        length = r @ p
        centred = w_DI @ p / length - 0.7 * c
        expected = length * (centred - 0.5 * u * (u @ centred))
        assert (w_DI + found_DI) @ p == pytest.approx(expected, abs=1e-4)


def test_the_direction_is_the_weighted_mean_of_the_predicted_captions_and_the_sentences_own():
    sentence_D, w_DI = units(EMBED, seed=9), MOMENTS.projection_DI.double().numpy()
    found_DI = update(TASK.member("strength=0.6/common=0/captions=2/sentence=3"), sentence_D)
    q = ridge(sentence_D.double().numpy(), MOMENTS.captions_TD, 0.3)
    own = (sentence_D - MOMENTS.sentences_TD.mean(0)).double().numpy()
    u = 2 * q / np.linalg.norm(q) + 3 * own / np.linalg.norm(own)
    u /= np.linalg.norm(u)
    assert found_DI == pytest.approx(-0.6 * np.outer(u, u @ w_DI), abs=1e-5)


def test_the_sentences_own_form_needs_no_moment():
    sentence_D, w_DI = units(EMBED, seed=9), MOMENTS.projection_DI.double()
    nothing = replace(MOMENTS, images_TD=MOMENTS.images_TD * torch.nan, captions_TD=MOMENTS.captions_TD * torch.nan)
    fitted = SENTENCE.restore(experts(nothing), {})
    b_DR, a_RI = fitted.own_layout.split(fitted.generate(asked(sentence_D), 1, 0, 1.0)[0])["head"]
    u_D = F.normalize(sentence_D.double() - MOMENTS.sentences_TD.double().mean(0), dim=0)
    expected_DI = -0.25 * torch.outer(u_D, u_D @ w_DI)
    torch.testing.assert_close((b_DR @ a_RI).double(), expected_DI, rtol=1e-4, atol=1e-5)


def test_it_wins_where_photos_differ_in_how_much_of_the_task_they_show():
    """A world as in its docstring: photos show more or less of the task, which says nothing of which photo it is. A
    caption that touches on the task is drawn to the photos that show most of it."""
    rng = torch.Generator().manual_seed(0)
    shared_D = MOMENTS.captions_TD[0]
    own_ND = 0.2 * torch.randn(30, EMBED, generator=rng)
    image_ND = own_ND + 6 * torch.randn(30, 1, generator=rng).abs() * shared_D
    image_ND = image_ND + 0.1 * torch.randn(30, EMBED, generator=rng)
    text_ND = F.normalize(own_ND + 0.5 * shared_D, dim=1)
    world = replace(MOMENTS, projection_DI=torch.eye(EMBED), projection=Site("head", EMBED, EMBED))
    fitted = TASK.member("ridge=0.0001/common=0/sentence=0").restore(experts(world), {})

    def recall(images_ND: torch.Tensor) -> float:
        return float(hits(F.normalize(images_ND, dim=1), text_ND, range(30))["T2I", 1].float().mean())

    def adapted(sentence_D: torch.Tensor) -> torch.Tensor:
        b_DR, a_RI = fitted.own_layout.split(fitted.generate(asked(sentence_D), 1, 0, 1.0)[0])["head"]
        return image_ND + image_ND @ (b_DR @ a_RI).T

    own, other = (recall(adapted(MOMENTS.sentences_TD[t])) for t in (0, 5))
    assert own > recall(image_ND) + 0.2
    assert own > other + 0.2


def test_what_it_needs_is_said():
    with pytest.raises(Unavailable, match="has no mean embeddings of its tasks' photos and captions") as found:
        TASK.restore(experts(None), {})
    assert found.value.hint == "add them with `sglora pack update PACK --data DIR`, or build the pack again"
    flat = replace(MOMENTS, projection=None, projection_DI=None, length_I=None)
    with pytest.raises(Unavailable, match="the linear map at the end of the image encoder"):
        TASK.restore(experts(flat), {})


def test_the_mean_sentence_has_no_direction_of_its_own():
    with pytest.raises(Mismatch, match="has no direction"):
        SENTENCE.restore(experts(), {}).generate(asked(MOMENTS.sentences_TD.double().mean(0)), 1, 0, 1.0)


@pytest.mark.parametrize(
    ("settings", "error", "said"),
    [
        ("strength=3", UsageError, "strength must be at most 2, got 3"),
        ("strength=-0.1", UsageError, "strength must be at least 0, got -0.1"),
        ("common=nan", UsageError, "common"),
        ("ridge=0", UsageError, "ridge must be at least"),
        ("strength=much", UsageError, "strength must be a number, got 'much'"),
        ("strenght=1", UnknownName, "strenght"),
        ("captions=0/sentence=0", UsageError, "captions and sentence of all-but-the-task are both 0"),
    ],
)
def test_a_setting_out_of_range_is_named(settings, error, said):
    with pytest.raises(error, match=said):
        TASK.member(settings)


def test_settings_are_in_the_name():
    member = TASK.member("strength=0.5/common=0.2")
    assert member.name == "all-but-the-task:strength=0.5/common=0.2"
    assert member.label == "All-but-the-task (strength=0.5, common=0.2)"
    assert member.settings == AllButConfig(0.5, 0.2, 1.0, 1.0, 0.3)
    with pytest.raises(Mismatch, match="no settings in a recipe"):
        TASK.fit(None, {"strength": 1.0})
