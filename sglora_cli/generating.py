"""A sentence -> adapters: one session holds pack, model and generator, and answers many sentences."""

from __future__ import annotations

import unicodedata
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sglora_cli import settings, shelves
from sglora_cli.adapters import Layout, checked_flat
from sglora_cli.configs import GenerateConfig, PriorConfig, RuntimeConfig, checked
from sglora_cli.contracts import Fitted, Generator, Model
from sglora_cli.errors import Unavailable, UsageError
from sglora_cli.files import content_hash
from sglora_cli.formats import FORMATS, AdapterFile, format_of, load_adapter, save_adapter, write_adapter
from sglora_cli.host import Host
from sglora_cli.packs import Pack
from sglora_cli.semantics import Prior, check_text, meaning
from sglora_cli.settings import cache_folder

MAX_CHARACTERS = 2000


@dataclass(frozen=True)
class Generated:
    """Adapters for one sentence: (S, P), with the prior they came from."""

    sentence: str
    adapters_SP: Tensor
    prior: Prior
    layout: Layout
    about: dict[str, Any]
    """Provenance, as written into the files."""
    warnings: tuple[str, ...]

    def paths(self, path: Path | None) -> list[Path]:
        """Where the samples go: `path`, numbered if there are several; the user cache without one."""
        if path is None:
            names = [content_hash(self.adapters_SP[s], self.about)[:16] for s in range(len(self.adapters_SP))]
            return [cache_folder() / "adapters" / f"{name}.safetensors" for name in names]
        if len(self.adapters_SP) == 1:
            return [path]
        return [path.with_name(f"{path.stem}-{s}{path.suffix}") for s in range(len(self.adapters_SP))]

    def save(self, path: Path | None = None, format: str = "", model: Model | None = None) -> list[Path]:
        """Write every sample; returns the files, or folders. What is written is read back and compared.

        A format other than our own needs the model, to see that the effect is the same.
        """
        paths, chosen = self.paths(path), format_of(path, format) if path else FORMATS["safetensors"]
        for s, (target, flat_P) in enumerate(zip(paths, self.adapters_SP, strict=True)):
            adapter = AdapterFile(self.layout, flat_P, {**self.about, "sample": s})
            if chosen.name != "safetensors":
                if model is None:
                    raise UsageError(f"format {chosen.name!r} cannot be written without the model", "pass model=")
                write_adapter(target, adapter, model, chosen)
                continue
            save_adapter(target, self.layout, flat_P, adapter.about)
            if not torch.equal(load_adapter(target).flat_P, flat_P):  # bit by bit: no features need to be compared
                raise Unavailable(f"{target} is not what was written", "is the disk healthy?")
        return paths


class Session:
    """Everything `generate` needs, loaded once.

    >>> session = Session.open()                                    # doctest: +SKIP
    >>> session.generate("a photo of a pug").save(Path("pug.safetensors"))  # doctest: +SKIP
    """

    def __init__(
        self, host: Host, pack: Pack, reason: str, generator: str = "", runtime: RuntimeConfig | None = None
    ) -> None:
        self.host, self.pack, self.reason = host, pack, reason
        self.runtime = settings.runtime(runtime or RuntimeConfig(), pack.backbone)
        name = generator or settings.load().generator or pack.manifest["default_generator"]
        self.generator: Generator = host.generators[name]
        self.fitted: Fitted = pack.fitted(self.generator)

    @classmethod
    def open(
        cls,
        pack: str = "",
        generator: str = "",
        host: Host | None = None,
        runtime: RuntimeConfig | None = None,
        backbone: str = "",
    ) -> Session:
        """A session with a named pack and generator, or the ones a plain `sglora generate` would take."""
        host = host or Host.load()
        place, reason = shelves.find(pack, host.recipe_folders, settings.load(), backbone)
        return cls(host, Pack(place.folder), reason, generator, runtime)

    @cached_property
    def model(self) -> Model:
        model = self.host.backbones[self.pack.backbone].load(self.runtime)
        self.pack.check_model(model)
        return model

    def generate(
        self, sentence: str, config: GenerateConfig | None = None, prior_config: PriorConfig | None = None
    ) -> Generated:
        """Adapters for one sentence. Raises UsageError for an empty or over-long one."""
        config, sentence = checked(config or GenerateConfig()), cleaned(sentence)
        prior_config = checked(prior_config or self.pack.prior_config)
        check_text(self.model, sentence)
        embedding_D = self.model.encode_text([sentence])[0]
        prior = self.pack.prior(embedding_D, prior_config)
        nearest = float((self.pack.meaning_EW @ meaning(self.model, [sentence])[0]).max())
        adapters_SP = self.fitted.generate(prior, config.samples, config.seed, config.temperature)
        checked_flat(adapters_SP, f"the output of generator {self.generator.name!r}")
        about = {
            "description": sentence,
            "backbone": self.pack.backbone,
            "fingerprint": self.pack.fingerprint,
            "pack": self.pack.name,
            "generator": self.generator.name,
            "prior": asdict(prior_config),
            "draw": asdict(config),
            "experts": [
                [self.pack.experts.names[r], round(float(a), 6)] for r, a in zip(prior.rows, prior.alpha_K, strict=True)
            ],
        }
        return Generated(sentence, adapters_SP, prior, self.pack.layout, about, self._warnings(nearest, adapters_SP))

    def _warnings(self, nearest: float, adapters_SP: Tensor) -> tuple[str, ...]:
        found = []
        if nearest < self.pack.far:
            found.append(
                f"the sentence is far from every expert: its meaning is {nearest:.2f} similar to the nearest one, "
                f"19 of 20 experts reach {self.pack.far:.2f}; measure the adapter before you trust it"
            )
        if float(self.pack.layout.update_norm(adapters_SP).max()) == 0:
            found.append(f"generator {self.generator.name!r} makes an update of zero: the adapter changes nothing")
        return tuple(found)


def cleaned(sentence: str) -> str:
    """The sentence with plain spaces. Raises UsageError if nothing is left, or far too much."""
    text = " ".join(unicodedata.normalize("NFC", sentence).split())
    if not any(character.isalnum() for character in text):
        raise UsageError(f"the sentence has no word: {sentence!r}", 'describe the task, as in "a photo of a pug"')
    if len(text) > MAX_CHARACTERS:
        raise UsageError(f"the sentence has {len(text)} characters, more than {MAX_CHARACTERS}", "shorten it")
    return text
