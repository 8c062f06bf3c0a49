"""A pack with its backbone and host."""

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
    """A pack, the plugins that it uses, and the device of its backbone."""

    host: Host
    pack: Pack
    runtime: RuntimeConfig
    """The requested configuration; see `placed`."""
    reason: str = ""
    """Why this pack was chosen; see `Library.find`."""
    _fitted: dict[str, Fitted] = field(default_factory=dict, repr=False)

    @classmethod
    def open(cls, host: Host, name: str = "", runtime: RuntimeConfig | None = None, backbone: str = "") -> LoadedPack:
        """Open the pack with this name or folder. Without a name, open the newest of a backbone, or the default pack.

        Raises UnknownName, UsageError if the named pack has another backbone, and BadFile.
        """
        location, reason = Library(host.recipe_folders).find(name, backbone)
        pack = Pack(location.folder)
        return cls(host, pack, runtime or RuntimeConfig(), reason)

    def with_pack(self, pack: Pack) -> LoadedPack:
        """Return another pack with the loaded backbone. Raises Mismatch if it was built for another backbone."""
        pack.check_model(self.model)
        other = replace(self, pack=pack, _fitted={})
        vars(other)["model"] = self.model  # where cached_property stores it
        return other

    @cached_property
    def placed(self) -> RuntimeConfig:
        """The runtime configuration, completed from the settings. Raises UsageError."""
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
        return "model" in vars(self)  # where cached_property stores it

    def generator(self, name: str = "") -> Generator:
        """Return the generator with this name, by default the settings' or the pack's. Raises UnknownName."""
        return self.host.generators[name or settings.load().generator or self.pack.manifest["default_generator"]]

    def usable(self, name: str = "") -> Generator:
        """Return the same as `generator`. Also raises UnknownName for one that needs training and the pack lacks."""
        generator = self.generator(name)
        self.pack.check_has(generator)
        return generator

    def fitted(self, name: str) -> Fitted:
        """Return a generator fitted to the pack, on the backbone's device if it supports devices. The result is cached.

        Raises UnknownName as `Pack.fitted`, and UsageError or Unavailable for a device that this machine lacks.
        """
        if name not in self._fitted:
            fitted = self.pack.fitted(self.host.generators[name])
            if isinstance(fitted, UsesDevice):
                fitted = fitted.on_device(pick_device(self.placed.device))
            self._fitted[name] = fitted
        return self._fitted[name]
