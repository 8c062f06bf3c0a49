"""A recipe with a few things changed; its manifest will say what was really built."""

from __future__ import annotations

from sglora_cli.contracts import ROLES
from sglora_cli.recipes import Recipe, parse


def with_backbone(recipe: Recipe, backbone: str) -> Recipe:
    """The same for another backbone."""
    return parse(recipe.name, {**recipe.raw, "backbone": backbone}, recipe.path, recipe.lines)


def limited(recipe: Recipe, tasks: int) -> Recipe:
    """The first so many tasks of each role of each source, under another name; K is at most the experts left."""
    sources = [{**raw, **{role: raw[role][:tasks] for role in ROLES if role in raw}} for raw in recipe.raw["source"]]
    experts = sum(len(source.get("expert", ())) for source in sources)
    prior = {**recipe.raw.get("prior", {}), "k": max(1, min(recipe.prior.k, experts))}
    raw = {**recipe.raw, "source": sources, "prior": prior}
    return parse(f"{recipe.name}-limit-{tasks}", raw, recipe.path, recipe.lines)
