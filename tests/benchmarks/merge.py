"""Weighted merge of four rank-2 experts to rank 2, ViT-B/16: `python tests/benchmarks/merge.py`.

Ours against PEFT's `add_weighted_adapter(combination_type="svd")` on a real vision tower with
random weights, in one run on one thread: time, and the error of both against the exact weighted
update. PEFT's adapters have lora_alpha = r (scaling 1), and it gives the merged one alpha = r too.
"""

from __future__ import annotations

import statistics
import time

import torch

from sglora_cli.lora.algebra import mix_updates
from sglora_cli.lora.layout import Layout, Site

EXPERTS, RANK, WEIGHTS, RUNS = 4, 2, [0.92, 0.05, 0.02, 0.01], 5
SITES = tuple(
    Site(f"vision_model.encoder.layers.{i}.self_attn.{name}_proj", 768, 768) for i in range(12) for name in "qkv"
)


def tower(layout: Layout, experts_KP: torch.Tensor):
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


def main() -> None:
    torch.set_num_threads(1)
    layout = Layout(SITES, RANK, float(RANK))
    experts_KP = torch.randn(EXPERTS, layout.size, generator=torch.Generator().manual_seed(0))
    weights_K = torch.tensor(WEIGHTS)
    exact = {
        name: torch.einsum("k,kor,kri->oi", weights_K.double(), b_KOR.double(), a_KRI.double())
        for name, (b_KOR, a_KRI) in layout.split(experts_KP).items()
    }
    whole = sum(float(x.square().sum()) for x in exact.values())

    def error(parts) -> float:
        lost = sum(
            float((exact[name] - b_OR.double() @ a_RI.double()).square().sum()) for name, (b_OR, a_RI) in parts.items()
        )
        return (lost / whole) ** 0.5

    times = []
    for _ in range(RUNS + 1):  # the first warms up
        start = time.perf_counter()
        mixed_P, stated = mix_updates(weights_K, experts_KP, layout)
        times.append(time.perf_counter() - start)
    ours = statistics.median(times[1:])
    print(f"sglora                   {ours:8.3f} s   error {error(layout.split(mixed_P)):.8f} (states {stated:.8f})")

    model = tower(layout, experts_KP)
    for full in (True, False):
        start = time.perf_counter()
        model.add_weighted_adapter(
            [f"e{k}" for k in range(EXPERTS)], WEIGHTS, f"m{full}", combination_type="svd", svd_full_matrices=full
        )
        seconds = time.perf_counter() - start
        parts = {}
        for name in exact:
            module = model.base_model.model.get_submodule(name)
            parts[name] = (module.lora_B[f"m{full}"].weight.detach(), module.lora_A[f"m{full}"].weight.detach())
        kind = "default" if full else "reduced"
        print(f"PEFT svd, {kind}        {seconds:8.3f} s   error {error(parts):.8f}   {seconds / ours:.0f} times ours")


if __name__ == "__main__":
    main()
