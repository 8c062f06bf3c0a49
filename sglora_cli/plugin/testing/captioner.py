"""Conformance checks of captioners."""

from __future__ import annotations

from collections.abc import Callable

import torch

from sglora_cli.plugin.contracts import CaptionModel
from sglora_cli.plugin.testing.toys import ask, images, run_all


def texts_are_as_many_as_asked(model: CaptionModel) -> None:
    """write returns `count` texts for an image of any size."""
    for image in (*images(2), images(1)[0].resize((1, 1))):
        for count in (1, 3):
            texts = model.write(image, PROMPT, count, 0)
            good = isinstance(texts, list | tuple) and all(isinstance(text, str) for text in texts)
            ask(good and len(texts) == count, f"write must return {count} texts, got {texts!r:.100}")


def arguments_say_everything(model: CaptionModel) -> None:
    """The same arguments return the same texts, independent of earlier calls, and the image is not changed."""
    one, other = images(2)
    before, state = one.tobytes(), torch.get_rng_state()
    texts = list(model.write(one, PROMPT, 2, 7))
    model.write(other, PROMPT, 2, 8)
    ask(texts == list(model.write(one, PROMPT, 2, 7)), "the same arguments returned different texts", "seed every call")
    ask(one.tobytes() == before, "the image was changed", "copy it before changing it")
    ask(
        torch.equal(state, torch.get_rng_state()),
        "torch's global random generator was used",
        "use torch.random.fork_rng",
    )


PROMPT = "Input: A photo of pug. Output: The pug has a fawn coat.\nInput: A photo of cat. Output:"
CAPTIONER_CHECKS: tuple[Callable[[CaptionModel], None], ...] = (texts_are_as_many_as_asked, arguments_say_everything)


def check_captioner(model: CaptionModel) -> None:
    """Raise PluginError listing everything that is wrong with a loaded captioner."""
    run_all(CAPTIONER_CHECKS, model)
