"""The sites that an adapter layout may have for a model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sglora_cli.plugin.contracts import HasProjection, Model

if TYPE_CHECKING:
    from sglora_cli.lora.layout import Layout, Site


def site_choices(model: Model) -> tuple[tuple[Site, ...], ...]:
    """Return the sites of each kind of layout that the model's adapters may have. The last kind has all of them.

    A model without a projection has one kind, its `sites`. One with a projection has three: `sites`, the projection
    alone, and both.
    """
    sites = tuple(model.sites)
    if not isinstance(model, HasProjection):
        return (sites,)
    return sites, (model.projection,), (*sites, model.projection)


def has_projection(model: Model, layout: Layout) -> bool:
    """Return whether adapters of this layout update the model's projection."""
    return isinstance(model, HasProjection) and model.projection in layout.sites


def is_projection_alone(model: Model, layout: Layout) -> bool:
    """Return whether adapters of this layout update only the projection, which makes them fast to compare."""
    return has_projection(model, layout) and len(layout.sites) == 1
