"""Weighted merge of four rank-2 experts to rank 2, ViT-B/16: `python tests/benchmarks/merge.py`.

Ours against PEFT's `add_weighted_adapter(combination_type="svd")` on a real vision tower with random weights, in one
run on one thread: processor time, and the error of both against the exact weighted update. Rounds of ours and theirs
alternate, and the median of each round's ratio counts: ours takes milliseconds, whose wall time is mostly waiting.
PEFT's adapters have lora_alpha = r (scaling 1), and it gives the merged one alpha = r too.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor

from sglora_cli.lora.algebra import mix_updates
from sglora_cli.lora.layout import Layout, Site

EXPERTS, RANK, WEIGHTS, OURS_A_ROUND = 4, 2, [0.92, 0.05, 0.02, 0.01], 10
SITES = tuple(
    Site(f"vision_model.encoder.layers.{i}.self_attn.{name}_proj", 768, 768) for i in range(12) for name in "qkv"
)


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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    layout = Layout(SITES, RANK, float(RANK))
    experts_KP = torch.randn(EXPERTS, layout.size, generator=torch.Generator().manual_seed(0))
    weights_K = torch.tensor(WEIGHTS)
    exact = {
        name: torch.einsum("k,kor,kri->oi", weights_K.double(), b_KOR.double(), a_KRI.double())
        for name, (b_KOR, a_KRI) in layout.split(experts_KP).items()
    }
    norm = sum(float(x.square().sum()) for x in exact.values()) ** 0.5

    def error(parts: dict[str, tuple[Tensor, Tensor]]) -> float:
        gaps = (exact[name] - b_OR.double() @ a_RI.double() for name, (b_OR, a_RI) in parts.items())
        return sum(float(gap.square().sum()) for gap in gaps) ** 0.5 / norm

    model = tower(layout, experts_KP)

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
        for _ in range(options.rounds):
            ours = processor_seconds(lambda: mix_updates(weights_K, experts_KP, layout), OURS_A_ROUND)
            theirs = processor_seconds(lambda full=full: peft(full))
            lost = error(merged_by_peft())
            model.delete_adapter("merged")
            pairs.append((ours, theirs))
        ours, theirs = (statistics.median(times) for times in zip(*pairs, strict=True))
        ratio = statistics.median(theirs / ours for ours, theirs in pairs)
        print(
            f"PEFT svd, {name}: error {lost:.8f}; CPU time {theirs:.3f} s against {ours * 1e3:.1f} ms,"
            f" PEFT / ours = {ratio:.0f} (median of {options.rounds} alternating rounds)"
        )


if __name__ == "__main__":
    main()
