"""TIES, DARE, Model Stock against PEFT's and mergekit's own results on the same tensors.

Dropping at random is compared under one seed: PEFT and mergekit draw from torch's global
generator what ours draws from its own. mergekit is in no extra, because it wants transformers 5 where
ours may be 4.57, and brings pandas and pyarrow; `pip install --no-deps "mergekit>=0.1.5"` is enough here.
"""

from __future__ import annotations

import warnings

import pytest
import torch
from merge_rules import ALPHA, EXPERTS, LAYOUT, at_one_site, dense, generate

from sglora_merge.rule import Rule

pytestmark = pytest.mark.oracle
WEIGHTS = [[1.0, 1.0, 1.0], [0.7, 0.2, 0.1], [2.0, 0.5, 0.5]]


def stack(seed: int = 0) -> torch.Tensor:
    return torch.randn(3, 20, 30, generator=torch.Generator().manual_seed(seed))


def ours(rule: Rule, weights: list[float], x: torch.Tensor) -> torch.Tensor:
    return at_one_site(rule, torch.tensor(weights), x, torch.Generator().manual_seed(5))


@pytest.fixture
def peft():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        merge_utils = pytest.importorskip("peft.utils.merge_utils", reason="PEFT is not installed (extra oracle)")
    torch.manual_seed(5)
    return merge_utils


@pytest.fixture
def mergekit():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pytest.importorskip("mergekit", reason="mergekit is not installed (pip install --no-deps mergekit)")
        base = pytest.importorskip("mergekit.merge_methods.base", reason="mergekit's needs are not installed")
        registry = pytest.importorskip("mergekit.merge_methods.registry", reason="mergekit's needs are not installed")

    def merge(name: str, x: torch.Tensor, **settings: object) -> torch.Tensor:
        """The merge of x (K, ...) as tuned weights over a base of zeros."""
        torch.manual_seed(5)
        tensors = [torch.zeros_like(x[0]), *x]
        group = base.TensorGroup.from_tensors(tensors, ids=["base", 0, 1, 2, 3][: len(tensors)], base_index=0)
        return registry.get(name).merge_group(group, **settings)

    return merge


@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("density", [0.2, 0.5])
@pytest.mark.parametrize("elect", ["total", "frequency"])
def test_ties_is_pefts(peft, weights, density, elect):
    x = stack()
    theirs = peft.ties(list(x), torch.tensor(weights), density, elect)
    merged = ours(Rule(prune="magnitude", density=density, elect=elect), weights, x)
    assert torch.allclose(merged, theirs, atol=1e-6)


@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("density", [0.2, 0.5])
def test_dare_with_the_same_mask_is_pefts(peft, weights, density):
    x, w = stack(), torch.tensor(weights)
    theirs = peft.dare_linear(list(x), w, density)
    assert torch.allclose(ours(Rule(prune="random", density=density), weights, x), theirs, atol=1e-6)
    torch.manual_seed(5)
    theirs = peft.dare_ties(list(x), w, density, "total")
    assert torch.allclose(ours(Rule(prune="random", density=density, elect="total"), weights, x), theirs, atol=1e-6)


@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("density", [0.2, 0.5])
@pytest.mark.parametrize(
    ("name", "rule"),
    [
        ("ties", {"prune": "magnitude", "elect": "total"}),
        ("dare_linear", {"prune": "random"}),
        ("dare_ties", {"prune": "random", "elect": "total"}),
    ],
)
def test_ties_and_dare_with_the_same_mask_are_mergekits(mergekit, name, rule, weights, density):
    x, each = stack(), range(3)
    theirs = mergekit(
        name,
        x,
        weight=dict(zip(each, weights, strict=True)),
        density=dict.fromkeys(each, density),
        normalize=name == "ties",  # mergekit's own defaults
        rescale=name != "ties",
        int8_mask=False,
        **{"lambda": 1.0},
    )
    merged = ours(Rule(**rule, density=density, convention="mergekit"), weights, x)
    assert torch.allclose(merged, theirs, atol=1e-6)


def test_model_stock_is_mergekits_cut_to_the_rank(mergekit):
    updates = dense(generate("model-stock")[0])
    for site, update in updates.items():
        theirs = mergekit(
            "model_stock", torch.stack([dense(x)[site].float() for x in EXPERTS.mean_EP]), filter_wise=False
        )
        u, s, vh = torch.linalg.svd(theirs.double(), full_matrices=False)
        assert torch.allclose(update, (u[:, :2] * s[:2]) @ vh[:2], atol=1e-5)


@pytest.mark.parametrize("name", ["linear", "ties", "dare_linear", "dare_ties"])
def test_factors_are_merged_as_pefts_add_weighted_adapter_does(peft, name, monkeypatch):
    """PEFT weighs A and B with the root of weight x scaling each, and gives the result the scaling 1."""
    from peft import LoraConfig, get_peft_model, set_peft_model_state_dict

    tower = torch.nn.ModuleDict(
        {site.name: torch.nn.Linear(site.in_features, site.out_features) for site in LAYOUT.sites}
    )
    config = LoraConfig(r=2, lora_alpha=3, target_modules=[site.name for site in LAYOUT.sites])
    model = get_peft_model(tower, config, adapter_name="e0")
    model.add_adapter("e1", config)
    chosen = EXPERTS.means([2, 1])
    for k, flat_P in enumerate(chosen):
        state = {}
        for site, (b, a) in LAYOUT.split(flat_P).items():
            state[f"base_model.model.{site}.lora_A.weight"], state[f"base_model.model.{site}.lora_B.weight"] = a, b
        set_peft_model_state_dict(model, state, adapter_name=f"e{k}")
    draw, theirs = torch.bernoulli, torch.Generator().manual_seed(5)  # PEFT's new layers draw numbers of their own
    monkeypatch.setattr(torch, "bernoulli", lambda p, generator=None: draw(p, generator=generator or theirs))
    density = {} if name == "linear" else {"density": 0.5}
    model.add_weighted_adapter(["e0", "e1"], ALPHA.tolist(), "merged", combination_type=name, **density)

    rule = {
        "linear": Rule(),
        "ties": Rule(prune="magnitude", density=0.5, elect="total"),
        "dare_linear": Rule(prune="random", density=0.5),
        "dare_ties": Rule(prune="random", density=0.5, elect="total"),
    }[name]
    from sglora_merge.merging import merge

    merged_P = merge(rule, EXPERTS, (ALPHA * LAYOUT.scaling).sqrt(), chosen, torch.Generator().manual_seed(5))
    for site, (b, a) in LAYOUT.split(merged_P).items():
        layer = model.base_model.model[site]
        assert torch.allclose(a, layer.lora_A["merged"].weight, atol=1e-6)
        assert torch.allclose(b, layer.lora_B["merged"].weight, atol=1e-6)
    assert bool(merged_P.any())
