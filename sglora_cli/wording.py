"""The sentences of a recipe: what may stand in a template, a description and a prompt, and what becomes of it.

{name} is a task's name, {classes} the names of a classification task's classes, {class} one of them.
"""

from __future__ import annotations

import re
from typing import Any

from sglora_cli.contracts import Task
from sglora_cli.errors import BadFile

PROMPTS = ("a photo of a {class}",)


def check_template(text: str) -> None:
    """Raises BadFile unless tasks get different sentences."""
    if "{name}" not in text or _braces(text, "{name}", "{classes}"):
        raise BadFile(f"template must contain {{name}}, and no other braces but {{classes}}, got {text!r}")


def check_description(text: Any) -> None:
    """Raises BadFile for what is no text, or has braces that mean nothing."""
    if not isinstance(text, str) or _braces(text, "{name}", "{classes}"):
        raise BadFile(f"description must be a text, with no braces but {{name}} and {{classes}}, got {text!r}")


def checked_prompts(texts: Any) -> tuple[str, ...]:
    """The prompts of a list. Raises BadFile unless each says where the class goes."""
    if not isinstance(texts, list) or not texts:
        raise BadFile(f"prompts must be a list of texts, got {texts!r}")
    for text in texts:
        if not isinstance(text, str) or "{class}" not in text or _braces(text, "{class}"):
            raise BadFile(f"a prompt must be a text with {{class}} and no other braces, got {text!r}")
    return tuple(texts)


def described(task: Task, text: str) -> str:
    """A task's description. Raises BadFile if it asks for the classes of a task that has none.

    >>> described(Task("d", "fish", "", {}, ("ray", "trout")), "{name}: {classes}")
    'fish: ray, trout'
    """
    if "{classes}" in text and not task.classes:
        raise BadFile(f"{task.dataset}/{task.name} is no classification task: it has no {{classes}} for {text!r}")
    return text.format(name=task.name, classes=", ".join(task.classes))


def _braces(text: str, *allowed: str) -> bool:
    """Whether there are braces besides those allowed."""
    for name in allowed:
        text = text.replace(name, "")
    return "{" in text or "}" in text


_SIDES = {"left": "right", "right": "left", "Left": "Right", "Right": "Left", "LEFT": "RIGHT", "RIGHT": "LEFT"}


def turned(caption: str) -> str:
    """What a caption says of its photo mirrored.

    >>> turned("A dog on the left of a right-handed man")
    'A dog on the right of a left-handed man'
    """
    return re.sub(rf"\b(?:{'|'.join(_SIDES)})\b", lambda found: _SIDES[found[0]], caption)
