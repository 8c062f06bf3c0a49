"""Renders HTML pages from templates/. Each is one file that needs no network and runs no scripts.

All pictures are embedded, and the page's content security policy forbids everything else. Jinja2 escapes all values.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from sglora_cli.files.images import read_image

_TEMPLATES = Environment(
    loader=PackageLoader("sglora_cli.report"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def page(template: str, **values: object) -> bytes:
    """Render a complete page in UTF-8. A lone surrogate, which UTF-8 cannot encode, becomes a question mark."""
    return _TEMPLATES.get_template(template).render(values).encode(errors="replace")


class Pictures:
    """Small JPEG copies of image files, each created once.

    pixels: their longest side. 240 looks sharp on a phone.
    """

    def __init__(self, files: Mapping[str, Path], pixels: int) -> None:
        self._files, self._pixels = files, pixels
        self._sources: dict[str, str] = {}

    def source(self, name: str) -> str:
        """Return the `src` of an img. Raises BadFile if the image is missing or cannot be decoded."""
        if name not in self._sources:
            image = read_image(self._files[name])
            image.thumbnail((self._pixels, self._pixels))
            out = io.BytesIO()
            image.save(out, "JPEG", quality=75, optimize=True)
            self._sources[name] = data_url("image/jpeg", out.getvalue())
        return self._sources[name]


def data_url(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
