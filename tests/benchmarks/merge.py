"""Merging four rank-2 experts of CLIP ViT-B/16 to rank 2: `PYTHONPATH=tests/support python tests/benchmarks/merge.py`.

Ours against PEFT's `add_weighted_adapter` on a real vision tower with random weights, in one run on one thread:

* weighted means of updates, PEFT's `svd`: processor time, and the error of both against the exact weighted update;
* TIES, DARE and KnOTS: processor time, also of one site after the other with all eigenvectors of every update.

Rounds alternate, and the median of each round's ratio counts: ours takes milliseconds, whose wall time is mostly
waiting. PEFT's adapters have lora_alpha = r (scaling 1), and it gives the merged one alpha = r too.
Shapes: K experts, O out_features, I in_features, R rank, P parameters of an expert.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from obvious_merge import elected, obvious_merge, pruned
from torch import Tensor

from sglora_cli.lora.algebra import compress, mix_updates, singular
from sglora_cli.lora.layout import Layout, Site
from sglora_merge.merging import merge
from sglora_merge.rule import Rule

EXPERTS, RANK, WEIGHTS, OURS_A_ROUND = 4, 2, [0.92, 0.05, 0.02, 0.01], 10
SITES = tuple(
    Site(f"vision_model.encoder.layers.{i}.self_attn.{name}_proj", 768, 768) for i in range(12) for name in "qkv"
)

TRIM = {"weights": "sum", "prune": "magnitude", "density": 0.2, "elect": "total"}
DROP = {"weights": "sum", "prune": "random", "density": 0.5}
RULES = {
    "ties": ("TIES of updates", Rule(**TRIM, space="updates"), "ties_svd"),
    "dare-linear": ("DARE of updates", Rule(**DROP, space="updates"), "dare_linear_svd"),
    "dare-ties": ("DARE-TIES of updates", Rule(**DROP, space="updates", elect="total"), "dare_ties_svd"),
    "knots": ("KnOTS-TIES", Rule(**TRIM, space="aligned"), ""),
    "ties-factors": ("TIES of factors", Rule(**TRIM), "ties"),
    "dare-ties-factors": ("DARE-TIES of factors", Rule(**DROP, elect="total"), "dare_ties"),
}
"""Label, our rule, and PEFT's combination_type, if it has one."""


class OfLayout:
    """What a rule must know of experts."""

    names = tuple(f"e{k}" for k in range(EXPERTS))

    def __init__(self, layout: Layout) -> None:
        self.layout = layout


def by_eigh(dense_OI: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """The best factors of a dense matrix by all of its left singular vectors."""
    dense_OI = dense_OI.double()
    u_OR = torch.linalg.eigh(dense_OI @ dense_OI.mT).eigenvectors[:, -rank:]
    return compress(u_OR, u_OR.mT @ dense_OI, rank)[:2]


def one_by_one(rule: Rule, layout: Layout, weights_K: Tensor, experts_KP: Tensor) -> Tensor:
    """The rule at one site after the other."""
    if rule.space != "aligned":
        return obvious_merge(rule, layout, weights_K, experts_KP, cut=by_eigh)
    parts = {}
    for name, (b_KOR, a_KRI) in layout.split(experts_KP).items():
        u, s, vh = singular(torch.cat(list(b_KOR), dim=-1), torch.block_diag(*a_KRI))  # without a dense matrix
        v_KFI = torch.stack(vh.float().chunk(len(b_KOR), dim=1))
        merged_FI = elected(rule, weights_K, pruned(rule, v_KFI, torch.Generator())).double()
        parts[name] = compress(u * s, merged_FI, layout.rank)[:2]
    return layout.join(parts)


def tower(layout: Layout, experts_KP: Tensor):
    """CLIP ViT-B/16's vision tower with the experts as PEFT adapters e0, e1 ..."""
    from peft import LoraConfig, get_peft_model, set_peft_model_state_dict
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    vision = CLIPVisionConfig(
        hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12, patch_size=16
    )
    names = r".*vision_model\.encoder\.layers\.\d+\.self_attn\.(q_proj|k_proj|v_proj)"
    config = LoraConfig(r=RANK, lora_alpha=RANK, target_modules=names)
    model = get_peft_model(CLIPVisionModelWithProjection(vision), config, adapter_name="e0")
    for k, expert_P in enumerate(experts_KP):
        if k:
            model.add_adapter(f"e{k}", config)
        state = {}
        for name, (b_OR, a_RI) in layout.split(expert_P).items():
            state[f"base_model.model.{name}.lora_A.weight"] = a_RI
            state[f"base_model.model.{name}.lora_B.weight"] = b_OR
        set_peft_model_state_dict(model, state, adapter_name=f"e{k}")
    return model


def processor_seconds(call: Callable[[], object], repeats: int = 1) -> float:
    """Of one call."""
    start = time.process_time()
    for _ in range(repeats):
        call()
    return (time.process_time() - start) / repeats


def weighted_means(model, layout: Layout, experts_KP: Tensor, rounds: int) -> None:
    weights_K = torch.tensor(WEIGHTS)
    exact = {
        name: torch.einsum("k,kor,kri->oi", weights_K.double(), b_KOR.double(), a_KRI.double())
        for name, (b_KOR, a_KRI) in layout.split(experts_KP).items()
    }
    norm = sum(float(x.square().sum()) for x in exact.values()) ** 0.5

    def error(parts: dict[str, tuple[Tensor, Tensor]]) -> float:
        gaps = (exact[name] - b_OR.double() @ a_RI.double() for name, (b_OR, a_RI) in parts.items())
        return sum(float(gap.square().sum()) for gap in gaps) ** 0.5 / norm

    def peft(full: bool) -> None:
        model.add_weighted_adapter(
            [f"e{k}" for k in range(EXPERTS)], WEIGHTS, "merged", combination_type="svd", svd_full_matrices=full
        )

    def merged_by_peft() -> dict[str, tuple[Tensor, Tensor]]:
        modules = {name: model.base_model.model.get_submodule(name) for name in exact}
        return {n: (m.lora_B["merged"].weight.detach(), m.lora_A["merged"].weight.detach()) for n, m in modules.items()}

    mixed_P, stated = mix_updates(weights_K, experts_KP, layout)  # also warms up
    print(f"sglora: error {error(layout.split(mixed_P)):.8f} (states {stated:.8f})")
    for name, full in (("default", True), ("reduced", False)):
        pairs = []
        for _ in range(rounds):
            ours = processor_seconds(lambda: mix_updates(weights_K, experts_KP, layout), OURS_A_ROUND)
            theirs = processor_seconds(lambda full=full: peft(full))
            lost = error(merged_by_peft())
            model.delete_adapter("merged")
            pairs.append((ours, theirs))
        ours, theirs = (statistics.median(times) for times in zip(*pairs, strict=True))
        ratio = statistics.median(theirs / ours for ours, theirs in pairs)
        print(
            f"PEFT svd, {name}: error {lost:.8f}; CPU time {theirs:.3f} s against {ours * 1e3:.1f} ms,"
            f" PEFT / ours = {ratio:.0f} (median of {rounds} alternating rounds)"
        )


def rules(model, layout: Layout, experts_KP: Tensor, rounds: int, wanted: list[str]) -> None:
    weights_K, experts = torch.ones(EXPERTS), OfLayout(layout)
    print(f"\n| CPU ms, median of {rounds} rounds | ours | one site after the other | PEFT | / ours | PEFT / ours |")
    print("|---|---|---|---|---|---|")
    for label, rule, kind in (RULES[name] for name in wanted):

        def ours(rule: Rule = rule) -> None:
            merge(rule, experts, weights_K, experts_KP)

        def alone(rule: Rule = rule) -> None:
            one_by_one(rule, layout, weights_K, experts_KP)

        def peft(rule: Rule = rule, kind: str = kind) -> None:
            full = {"svd_full_matrices": False} if kind.endswith("svd") else {}
            names = list(experts.names)
            model.add_weighted_adapter(
                names, weights_K.tolist(), "merged", combination_type=kind, density=rule.density, **full
            )
            model.delete_adapter("merged")

        calls = [ours, alone, *[peft] * bool(kind)]
        ours()  # warms up
        times = [[processor_seconds(call) for call in calls] for _ in range(rounds)]
        middle = [f"{1e3 * statistics.median(column):,.1f}" for column in zip(*times, strict=True)]
        ratios = [f"{statistics.median(round_[n] / round_[0] for round_ in times):.1f}" for n in range(1, len(calls))]
        cells = [*middle, *[""] * (3 - len(calls)), *ratios, *[""] * (3 - len(calls))]
        print(f"| {label} | {' | '.join(cells)} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rules", nargs="*", choices=RULES, default=list(RULES), help="all by default; none: --rules")
    options = parser.parse_args()
    torch.set_num_threads(1)
    layout = Layout(SITES, RANK, float(RANK))
    experts_KP = torch.randn(EXPERTS, layout.size, generator=torch.Generator().manual_seed(0))
    model = tower(layout, experts_KP)
    weighted_means(model, layout, experts_KP, options.rounds)
    rules(model, layout, experts_KP, options.rounds, options.rules)


if __name__ == "__main__":
    main()
