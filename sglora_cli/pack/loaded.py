"""A pack with its backbone and host, opened for work."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property

from sglora_cli.config import RuntimeConfig
from sglora_cli.pack.library import Library
from sglora_cli.pack.pack import Pack
from sglora_cli.plugin.contracts import Fitted, Generator, Model, UsesDevice
from sglora_cli.plugin.host import Host
from sglora_cli.system import settings
from sglora_cli.system.hardware import pick_device


@dataclass(frozen=True)
class LoadedPack:
    """A pack, the plugins that serve it, and where its backbone computes."""

    host: Host
    pack: Pack
    runtime: RuntimeConfig
    """What was asked for; see `placed`."""
    reason: str = ""
    """Why this pack was chosen; see `Library.find`."""
    _fitted: dict[str, Fitted] = field(default_factory=dict, repr=False)

    @classmethod
    def open(cls, host: Host, name: str = "", runtime: RuntimeConfig | None = None, backbone: str = "") -> LoadedPack:
        """Open the pack of that name or folder; without a name the newest of a backbone, or the default one.

        Raises UnknownName, UsageError (the named pack is of another backbone), BadFile.
        """
        location, reason = Library(host.recipe_folders).find(name, backbone)
        pack = Pack(location.folder)
        return cls(host, pack, runtime or RuntimeConfig(), reason)

    def with_pack(self, pack: Pack) -> LoadedPack:
        """Another pack of the same backbone, which is not loaded again. Raises Mismatch for one of another backbone."""
        pack.check_model(self.model)
        other = replace(self, pack=pack, _fitted={})
        vars(other)["model"] = self.model  # where cached_property keeps it
        return other

    @cached_property
    def placed(self) -> RuntimeConfig:
        """Where the backbone computes, with what the settings say. Raises UsageError."""
        return settings.runtime(self.runtime, self.pack.backbone)

    @cached_property
    def model(self) -> Model:
        """The backbone. Raises Mismatch unless the pack was built for exactly this model."""
        model = self.host.backbones[self.pack.backbone].load(self.placed)
        self.pack.check_model(model)
        return model

    @property
    def has_model(self) -> bool:
        """Whether the backbone is loaded."""
        return "model" in vars(self)  # where cached_property keeps it

    def generator(self, name: str = "") -> Generator:
        """The generator of that name; by default that of the settings, or the pack's. Raises UnknownName."""
        return self.host.generators[name or settings.load().generator or self.pack.manifest["default_generator"]]

    def usable(self, name: str = "") -> Generator:
        """The same. Raises UnknownName also for one that must be trained and is not trained in this pack."""
        generator = self.generator(name)
        self.pack.check_has(generator)
        return generator

    def fitted(self, name: str) -> Fitted:
        """A generator, fitted to the pack and then kept, where the backbone computes if it can compute there.

        Raises UnknownName as `Pack.fitted`, UsageError or Unavailable for a device that is not on this machine.
        """
        if name not in self._fitted:
            fitted = self.pack.fitted(self.host.generators[name])
            if isinstance(fitted, UsesDevice):
                fitted = fitted.on_device(pick_device(self.placed.device))
            self._fitted[name] = fitted
        return self._fitted[name]
