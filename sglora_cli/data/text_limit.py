"""Find captions that a backbone's text encoder truncates, by counting tokens. No weights are loaded."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from sglora_cli.errors import PluginError, SgloraError
from sglora_cli.plugin.contracts import CountsTokens
from sglora_cli.plugin.host import Host
from sglora_cli.system.progress import progress

_AT_ONCE = 1000
_SLACK = 8  # for tokens that frame the text; every other token has at least one byte
_CHARACTERS = 16  # per token; only the start of longer texts is counted, as some tokenizers take quadratic time


@dataclass(frozen=True)
class TextLimit:
    """The token limit of a backbone's text encoder."""

    backbone: str = ""
    tokens: int = 0
    """The most tokens that the encoder reads; 0 if unknown."""
    reason: str = "no backbone is specified"
    """Why tokens are not counted; "" if they are."""
    _counter: CountsTokens | None = field(default=None, repr=False, compare=False)

    @classmethod
    def of(cls, host: Host, backbone: str) -> TextLimit:
        """Return the limit of a backbone. If it is unavailable, `reason` says why. Raises PluginError."""
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
        """Find the texts that are truncated. Counts each text once, and only if it is long enough to be truncated."""
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
                    if not exact and count <= self.tokens:  # a text of blanks, for example
                        (count,), exact = self._counter.count_tokens([text]), True
                    if count > self.tokens:
                        cut[text] = f"{count} tokens" if exact else f"more than {count} tokens"
        except PluginError:
            raise
        except SgloraError as error:  # the tokenizer is not on this machine
            return TextsCut(TextLimit(self.backbone, self.tokens, error.message), {})
        return TextsCut(self, cut)

    def to_json(self) -> dict[str, Any]:
        """The limit as JSON values."""
        return {"backbone": self.backbone or None, "limit": self.tokens or None, "reason": self.reason or None}


@dataclass(frozen=True)
class TextsCut:
    """Texts that a text encoder truncates."""

    limit: TextLimit
    """The limit. Its `reason` says why no tokens were counted, if so."""
    tokens: dict[str, str]
    """Maps each truncated text to its length in words: `242 tokens`."""
