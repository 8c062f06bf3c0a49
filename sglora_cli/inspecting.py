"""What an adapter, a pack or a recipe is, in lines for a person."""

from __future__ import annotations

from sglora_cli.contracts import ROLES
from sglora_cli.formats import AdapterFile
from sglora_cli.packs import Pack
from sglora_cli.recipes import Recipe


def adapter_facts(adapter: AdapterFile) -> list[str]:
    about, layout = adapter.about, adapter.layout
    norm = float(layout.update_norm(adapter.flat_P))
    experts = ", ".join(f"{name} {weight:.1%}" for name, weight in about.get("experts", []))
    return [
        f"adapter for {about.get('description', 'an unknown task')!r}",
        f"backbone   {about.get('backbone', 'unknown')}, fingerprint {adapter.fingerprint or 'unknown'}",
        f"layout     rank {layout.rank}, alpha {layout.alpha:g}, {len(layout.sites)} sites, {layout.size} numbers",
        f"made by    generator {about.get('generator', 'unknown')} of pack {about.get('pack', 'unknown')}",
        f"experts    {experts or 'unknown'}",
        f"update     norm {norm:.3f}" + ("" if norm else ": it changes nothing"),
    ]


def pack_facts(pack: Pack) -> list[str]:
    lines = [
        f"pack {pack.name}: {pack.manifest['recipe'].get('summary', '')}".rstrip(": "),
        f"folder     {pack.folder}",
        f"backbone   {pack.backbone}, fingerprint {pack.fingerprint}",
        f"layout     rank {pack.layout.rank}, alpha {pack.layout.alpha:g}, "
        f"{len(pack.layout.sites)} sites, {pack.layout.size} numbers",
        f"prior      K {pack.prior_config.k}, tau {pack.prior_config.tau:g}",
    ]
    for role in ROLES:
        tasks = [task for task in pack.manifest["tasks"] if task["role"] == role]
        by_set = {t["dataset"]: [x["name"] for x in tasks if x["dataset"] == t["dataset"]] for t in tasks}
        lines += [f"{role:<10} {dataset}: {', '.join(names)}" for dataset, names in by_set.items()]
    for name, health in pack.manifest["generators"].items():
        facts = ", ".join(f"{k} {_short(v)}" for k, v in sorted(health.items()))
        lines.append(f"generator  {name}: {facts}")
    lines += [f"changed    {edit}" for edit in pack.manifest.get("edits", [])]
    return lines


def pack_health(pack: Pack) -> list[str]:
    wrong = pack.verify()
    return [f"damaged    {sentence}" for sentence in wrong] or [
        f"healthy    {len(pack.manifest['files'])} files, all as built"
    ]


def recipe_facts(recipe: Recipe) -> list[str]:
    lines = [
        f"recipe {recipe.name}: {recipe.raw.get('summary', '')}".rstrip(": "),
        f"backbone   {recipe.backbone}",
        f"template   {recipe.template!r}",
        f"training   {recipe.train}",
        f"prior      {recipe.prior}",
        f"generators {', '.join(recipe.generators) or 'merging rules only'}",
    ]
    for source in recipe.sources:
        counts = ", ".join(f"{len(names)} {role}" for role, names in source.roles.items())
        lines.append(f"source     {source.name} ({source.dataset}: {source.path}): {counts}")
    return lines


def _short(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
