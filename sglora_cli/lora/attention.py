"""Find the attention projections of a torch module, and run it with T adapters at once.

For plugin authors: `AttentionSites(module)` finds q, k and v of every self-attention, stored as three
linears, one fused `qkv` linear or the rows of an `in_proj_weight` (nn.MultiheadAttention, open_clip).
Inside `with sites.attached(sites.updates(layout, adapters_TP)):` the module takes T * N inputs, starting with
all N of the first adapter, and behaves like T models. Nothing is merged, so the weights stay bit-identical.

Shapes: T adapters, N images per adapter, L tokens, I = in_features, O = out_features, R rank, P parameters.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sglora_cli.errors import Mismatch
from sglora_cli.lora.layout import Layout, Site
from sglora_cli.lora.projection import last_projection, split_projection

Update = tuple[Tensor, Tensor]
"""Update of T adapters for one target with n = 1 or 3 sites: A (T, I, n R) and B (T, n R, n O), including scaling."""

SEPARATE = (("q_proj", "k_proj", "v_proj"), ("query", "key", "value"), ("q", "k", "v"))
Namer = Callable[[str, str], str]
_MERGED_INTO = "pass the weights it was merged into with --weights FILE"


@dataclass(frozen=True)
class Target:
    """A weight that receives an update: a linear, or an attention with packed rows q, k, v."""

    path: str
    module: nn.Module
    sites: tuple[Site, ...]

    @property
    def packed(self) -> bool:
        return not isinstance(self.module, nn.Linear)

    @property
    def weight_name(self) -> str:
        return f"{self.path}.{'in_proj_weight' if self.packed else 'weight'}"


def low_rank(y: Tensor, x: Tensor, update: Update | None, shared: bool = False) -> Tensor:
    """Compute y + B A x for T adapters, x (T * N, ..., I), y (T * N, ..., O), without building B A or weight gradients.

    shared: x (N, ..., I) and y (N, ..., O) are shared by all adapters. The result has all T * N.
    """
    if update is None:
        return y
    a_TIR, b_TRO = update
    shape = (1 if shared else len(a_TIR), -1)
    rows_TXI, rows_TXO = (z.reshape(*shape, z.shape[-1]).expand(len(a_TIR), -1, -1) for z in (x, y))
    sum_TXO = torch.baddbmm(rows_TXO, rows_TXI @ a_TIR.to(x.dtype), b_TRO.to(y.dtype))
    return sum_TXO.view(-1, *y.shape[1:])


def packed_attention(
    module: Any,
    x: Tensor,
    update: Update | None = None,
    queries: int | None = None,
    mask: Tensor | None = None,
    shared: bool = False,
) -> Tensor:
    """Self-attention whose q, k, v are the rows of `module.in_proj_weight`: (T * N, L, I) -> (T * N, L, I).

    With `queries`, only the first tokens are queries, and only they are returned. This suffices for a last block of
    which only these tokens are used. With `shared`, x (N, L, I) is shared by all adapters, as in a first block, and
    the frozen products are computed once.
    """
    weight, bias, width = module.in_proj_weight, module.in_proj_bias, module.in_proj_weight.shape[1]
    if torch.is_autocast_enabled(x.device.type):
        x = x.to(torch.get_autocast_dtype(x.device.type))  # cast once, for both the weight and the updates
    if queries is None:
        q, k, v = low_rank(F.linear(x, weight, bias), x, update, shared).chunk(3, dim=-1)
    else:
        b_q, b_kv = (None, None) if bias is None else (bias[:width], bias[width:])
        first = x[:, :queries]
        own = rest = None
        if update is not None:
            a, b = update
            r = a.shape[-1] // 3
            own, rest = (a[..., :r], b[:, :r, :width]), (a[..., r:], b[:, r:, width:])
        q = low_rank(F.linear(first, weight[:width], b_q), first, own, shared)
        k, v = low_rank(F.linear(x, weight[width:], b_kv), x, rest, shared).chunk(2, dim=-1)
    q, k, v = (z.unflatten(-1, (module.num_heads, -1)).transpose(1, 2) for z in (q, k, v))
    result: Tensor = module.out_proj(_attend(q, k, v, mask).transpose(1, 2).flatten(2))
    return result


def _attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    if q.device.type == "cpu" and q.dtype == torch.bfloat16 and mask is None and torch.is_grad_enabled():
        # On a CPU in bf16, torch's own kernel is four times slower in the backward pass.
        return torch.softmax(q * q.shape[-1] ** -0.5 @ k.mT, dim=-1) @ v
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)


class AttentionSites:
    """The q, k and v of every self-attention in `root`, in the order of its modules.

    name(path, part) names a site, given the path of the attention and the part "q", "k" or "v". The default is
    the linear's own path, or `path.part` if the three share a weight. Raises Mismatch if there is none.
    """

    def __init__(self, root: nn.Module, name: Namer | None = None) -> None:
        self.targets = [target for path, module in root.named_modules() for target in _targets(path, module, name)]
        if not self.targets:
            raise Mismatch(f"{type(root).__name__} has no self-attention with a supported layout of q, k and v")
        self.sites = tuple(site for target in self.targets for site in target.sites)

    def updates(self, layout: Layout, adapters_TP: Tensor) -> list[Update]:
        """Return one update per target, differentiable. Raises Mismatch for another backbone's layout."""
        if layout.sites != self.sites:
            raise Mismatch("the adapter's sites do not match the backbone's", "generate it again for this backbone")
        parts = layout.split(adapters_TP)
        return [_packed([parts[site.name] for site in target.sites], layout.scaling) for target in self.targets]

    @contextmanager
    def attached(self, updates: Sequence[Update], targets: Sequence[Target] | None = None) -> Iterator[None]:
        """Make targets (by default all) add their updates inside the block. Afterwards the module is unchanged."""
        with ExitStack() as undo:
            for target, update in zip(self.targets if targets is None else targets, updates, strict=True):
                undo.callback(_attach(target.module, update))
            yield

    def merged(
        self, weights: Mapping[str, Tensor], layout: Layout, flat_P: Tensor, prefix: str = ""
    ) -> dict[str, Tensor]:
        """Return copies of `weights` with an adapter's update added. A weight is named `prefix` + its path."""
        result = {name: weight.clone() for name, weight in weights.items()}
        parts = layout.split(flat_P)
        for target in self.targets:
            dense = torch.cat([parts[s.name][0] @ parts[s.name][1] for s in target.sites]) * layout.scaling
            result[prefix + target.weight_name] += dense.to(result[prefix + target.weight_name])
        return result

    def unmerged(
        self,
        weights: Mapping[str, Tensor],
        merged: Mapping[str, Tensor],
        prefix: str = "",
        also: Collection[str] = (),
    ) -> dict[str, Tensor]:
        """Invert `merged`: return site name -> difference (O, I). Raises Mismatch if anything else differs, except
        the weights in `also`."""
        ours = {*also, *(prefix + target.weight_name for target in self.targets)}
        if set(weights) != set(merged):
            odd = sorted(set(weights) ^ set(merged))[0]
            raise Mismatch(f"the checkpoint and the backbone have different tensors, such as {odd!r}", _MERGED_INTO)
        for name, weight in weights.items():
            if merged[name].shape != weight.shape:
                raise Mismatch(
                    f"{name} has shape {tuple(merged[name].shape)}, but {tuple(weight.shape)} in the backbone",
                    _MERGED_INTO,
                )
            if name not in ours and not torch.equal(merged[name].to(weight), weight):
                may = "q, k and v of the visual encoder" + "".join(f" and {one}" for one in also)
                raise Mismatch(f"{name} differs from the backbone's weight", f"{_MERGED_INTO}; only {may} may differ")
        result: dict[str, Tensor] = {}
        for target in self.targets:
            name = prefix + target.weight_name
            gap = merged[name].double() - weights[name].double().cpu()
            result.update(zip((s.name for s in target.sites), gap.chunk(len(target.sites)), strict=True))
        return {name: gap.float() for name, gap in result.items()}


def _packed(parts: Sequence[tuple[Tensor, Tensor]], scaling: float) -> Update:
    """Combine (B, A) of one or three sites that share a weight into one update with a block-diagonal B."""
    a_TIR = torch.cat([a for _, a in parts], dim=1).mT
    width = sum(b.shape[1] for b, _ in parts)
    rows, start = [], 0
    for b, _ in parts:
        end = start + b.shape[1]
        rows.append(F.pad(b.mT * scaling, (start, width - end)))
        start = end
    return a_TIR, torch.cat(rows, dim=1)


@contextmanager
def attached(module: nn.Module, layout: Layout, flat_P: Tensor) -> Iterator[nn.Module]:
    """Make a CLIP of open_clip or transformers, or its visual encoder, compute with one adapter (P,) inside the block.

    In a full CLIP it is attached to `visual`, or to `vision_model` and `visual_projection`. Sites are matched by order
    and shape, because their names differ between packages. The caller must ensure that the weights are those the
    adapter was made for. Raises Mismatch if the number or the shapes of the sites differ.
    """
    parts = [getattr(module, name, None) for name in ("visual", "vision_model")]
    visual = next((part for part in parts if isinstance(part, nn.Module)), module)
    attention, last = AttentionSites(visual), last_projection(module, visual)
    shapes, own = ([(s.out_features, s.in_features) for s in sites] for sites in (attention.sites, layout.sites))
    tail = [(last.out_features, last.in_features)] if last else []
    if own not in (shapes, shapes + tail, tail):
        raise Mismatch(
            f"the adapter has {len(own)} site{'s' * (len(own) != 1)}, the first {own[0]}, "
            f"but {type(visual).__name__} has {len(shapes)}, the first {shapes[0]}, "
            f"and {f'a last projection {tail[0]}' if tail else 'no projection after them'}",
            "attach it to a model of the adapter's architecture",
        )
    adapter_TP = flat_P[None].to(next(visual.parameters()).device)
    others, update = split_projection(layout, adapter_TP, layout.sites[-1] if len(own) != len(shapes) else None)
    with ExitStack() as undo:
        if others:
            own_layout = Layout(attention.sites, layout.rank, layout.alpha)
            undo.enter_context(attention.attached(attention.updates(own_layout, others[1])))
        if last and update:
            undo.callback(last.attach(update))
        yield module


def _targets(path: str, module: nn.Module, name: Namer | None) -> list[Target]:
    if isinstance(packed := getattr(module, "in_proj_weight", None), Tensor) and hasattr(module, "out_proj"):
        _check_packed(path, module)
        width = packed.shape[1]
        return [Target(path, module, _sites(path, width, width, name))]
    if isinstance(fused := getattr(module, "qkv", None), nn.Linear):
        path, width = f"{path}.qkv".lstrip("."), fused.out_features // 3
        return [Target(path, fused, _sites(path, width, fused.in_features, name))]
    for names in SEPARATE:
        linears = [getattr(module, child, None) for child in names]
        if all(isinstance(linear, nn.Linear) for linear in linears):
            paths = [f"{path}.{child}".lstrip(".") for child in names]
            sites = [
                Site(name(path, part) if name else own, linear.out_features, linear.in_features)  # type: ignore[union-attr]
                for own, part, linear in zip(paths, "qkv", linears, strict=True)
            ]
            return [Target(p, m, (s,)) for p, m, s in zip(paths, linears, sites, strict=True)]  # type: ignore[arg-type]
    return []


def _sites(path: str, out: int, into: int, name: Namer | None) -> tuple[Site, ...]:
    return tuple(Site(name(path, part) if name else f"{path}.{part}", out, into) for part in "qkv")


def _check_packed(path: str, module: Any) -> None:
    """Raise Mismatch for an attention that does more than q, k, v and softmax, which would give wrong results."""
    plain = all(
        isinstance(getattr(module, extra, nn.Identity()), nn.Identity) for extra in ("ln_q", "ln_k", "ln_inner")
    )
    plain &= getattr(module, "logit_scale", None) is None and getattr(module, "head_scale", None) is None
    plain &= getattr(module, "bias_k", None) is None and not getattr(module, "add_zero_attn", False)
    if not plain:
        raise Mismatch(
            f"adapters are not supported for the attention {path} of type {type(module).__name__}",
            "use a backbone with plain attention",
        )


def _attach(module: Any, update: Update) -> Callable[[], None]:
    """Make one target add its update. Returns a function that removes it."""
    if isinstance(module, nn.Linear):
        handle = module.register_forward_hook(lambda _, inputs, y: low_rank(y, inputs[0], update))
        return handle.remove
    mine = "forward" in vars(module)
    before = module.forward

    def forward(query: Tensor, key: Any = None, value: Any = None, **options: Any) -> Any:
        if (key is not None and key is not query) or (value is not None and value is not query):
            raise Mismatch("adapters only support self-attention, with the same tensor as query, key and value")
        if options.get("key_padding_mask") is not None or options.get("is_causal"):
            raise Mismatch("an attention with an adapter supports attn_mask, but not key_padding_mask or is_causal")
        first = getattr(module, "batch_first", True)
        x = query if first else query.transpose(0, 1)
        y = packed_attention(module, x, update, mask=options.get("attn_mask"))
        y = y if first else y.transpose(0, 1)
        return (y, None) if isinstance(module, nn.MultiheadAttention) else y

    module.forward = forward
    # nn.TransformerEncoderLayer bypasses forward and reads the weights directly, unless there is a hook.
    handle = module.register_forward_pre_hook(lambda *_: None)

    def undo() -> None:
        handle.remove()
        if mine:
            module.forward = before
        else:
            del module.forward

    return undo
