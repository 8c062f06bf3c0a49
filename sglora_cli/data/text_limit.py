"""How much of a text the text encoder of a backbone reads, and which captions it cuts. No weights are loaded."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from sglora_cli.errors import PluginError, SgloraError
from sglora_cli.plugin.contracts import CountsTokens
from sglora_cli.plugin.host import Host
from sglora_cli.system.progress import progress

_AT_ONCE = 1000
_SLACK = 8  # a token has a byte or more, and some frame the text
_CHARACTERS = 16  # a token: of a longer text only so much is counted, since some tokenizers take the square of the time


@dataclass(frozen=True)
class TextLimit:
    """What a backbone's text encoder reads of a text."""

    backbone: str = ""
    tokens: int = 0
    """The most it reads; 0 where nobody can say."""
    reason: str = "no backbone is named"
    """Why tokens are not counted; "" where they are."""
    _counter: CountsTokens | None = field(default=None, repr=False, compare=False)

    @classmethod
    def of(cls, host: Host, backbone: str) -> TextLimit:
        """That of a backbone, installed or not; `reason` says what is missing. Raises PluginError."""
        try:
            plugin = host.backbones[backbone]
            if not isinstance(plugin, CountsTokens):
                return cls(backbone, 0, f"backbone {backbone!r} does not count tokens")
            return cls(backbone, plugin.token_limit(), "", plugin)
        except PluginError:
            raise
        except SgloraError as error:
            return cls(backbone, 0, error.message)

    def cut(self, texts: Iterable[str]) -> TextsCut:
        """Which texts are cut. Only those long enough to be are counted, each once."""
        if self._counter is None:
            return TextsCut(self, {})
        long = [text for text in dict.fromkeys(texts) if len(text.encode(errors="replace")) + _SLACK > self.tokens]
        most = self.tokens * _CHARACTERS
        cut: dict[str, str] = {}
        starts: Sequence[int] = range(0, len(long), _AT_ONCE)
        try:
            for start in progress(starts, f"batches of {_AT_ONCE} captions"):
                some = long[start : start + _AT_ONCE]
                for text, count in zip(some, self._counter.count_tokens([text[:most] for text in some]), strict=True):
                    exact = len(text) <= most
                    if not exact and count <= self.tokens:  # of blanks, say
                        (count,), exact = self._counter.count_tokens([text]), True
                    if count > self.tokens:
                        cut[text] = f"{count} tokens" if exact else f"more than {count} tokens"
        except PluginError:
            raise
        except SgloraError as error:  # its tokenizer is not here
            return TextsCut(TextLimit(self.backbone, self.tokens, error.message), {})
        return TextsCut(self, cut)

    def to_json(self) -> dict[str, Any]:
        """What `--json` says of it."""
        return {"backbone": self.backbone or None, "limit": self.tokens or None, "reason": self.reason or None}


@dataclass(frozen=True)
class TextsCut:
    """Texts that a text encoder cuts."""

    limit: TextLimit
    """Its `reason` says why none were counted, if so."""
    tokens: dict[str, str]
    """Text to how many it has, in words: `242 tokens`."""
