"""Write the pages that follow from the program or from other pages.

    python -m tests.docs.reference

reference.md follows from the program, plugins.md from plugins/README.md, and README.md from the list of the pages.

Only this distribution's own plugins are asked, and nothing that differs between machines is written.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import re
import textwrap
from collections.abc import Iterable, Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any, get_type_hints

import click

from sglora_cli import config, errors
from sglora_cli.bench import rows_file
from sglora_cli.cli.commands.docs import INDEX, SECTIONS, all_pages
from sglora_cli.cli.main import COMMANDS, main
from sglora_cli.lora.layout import Site
from sglora_cli.pack import pack, recipe_parser
from sglora_cli.pack.content import manifest
from sglora_cli.plugin import contracts, hookspecs, values
from sglora_cli.plugin.host import Host
from sglora_cli.system import settings

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "sglora_cli" / "docs"
"""That of the checkout, whatever is installed."""
RUNTIME = [spec.name for spec in dataclasses.fields(config.RuntimeConfig)]
ENVIRONMENT = {
    "SGLORA_HOME": "One folder that replaces all user folders. It holds `settings.toml` and `cache/`.",
    "SGLORA_OFFLINE": "If it is 1, the network is not used. Weights, captioners and data sets must be on this machine.",
}
ADAPTER = {
    "kind": '"adapter".',
    "format": "2. Packs of format 1 are read as well. Any other number is refused.",
    "layout": "`rank`, `alpha` and `sites`: name, out_features and in_features of each, in layer order.",
    "description": "The sentence it was made for.",
    "described_by": "All sentences with their weights, if there are several.",
    "backbone": "Name of the backbone it was made for.",
    "fingerprint": "Of that backbone's weights, activation and preprocessing. The adapter works with no other.",
    "pack": "The pack it was made from.",
    "generator": "The generator that made it.",
    "prior": "`k` and `tau`.",
    "draw": "`samples`, `seed`, `temperature`, and `best` if only the best were kept.",
    "experts": "The K experts and their weights.",
    "sample": "Number of the draw.",
    "imported": "For an imported adapter: format, file name, hash, rank, and what was lost.",
}
PACK = {
    "format": "2. Packs of format 1 are read as well. Any other number is refused.",
    "name": "The pack's name.",
    "made_by": "Program and version.",
    "backbone": "Name of the backbone.",
    "fingerprint": "Of its weights, activation and preprocessing.",
    "recipe": "The complete recipe.",
    "layout": "`rank`, `alpha` and `sites`, as in an adapter.",
    "prior": "`k` and `tau`.",
    "counts": "The number of tasks of each role. A line of `tasks/` has the task's key, dataset, name, role, "
    "description and counts of photos, and the origin of an added expert.",
    "shards": "The number of experts in each file of `experts/`.",
    "files": "SHA-256 of every other file, by name.",
    "generators": "Measurements from the training of each learned generator.",
    "default_generator": "The generator used when a command names none.",
}


def reference() -> str:
    host = Host.load(entry for entry in metadata.entry_points(group=hookspecs.GROUP) if _own(entry))
    parts = [
        ["# Reference", "", "Commands, options, settings, recipe keys, exit codes, files, generators and contracts."],
        ["`python -m tests.docs.reference` generates this page from the program.", "", *_contents()],
        _commands(),
        ["## Runtime options", "", _doc(config.RuntimeConfig), "", *_knobs(config.RuntimeConfig, option=True)],
        _environment(),
        _recipe(host),
        _generators(host),
        ["## Other plugins", "", *_others(host)],
        _exit_codes(),
        _files(),
        _contracts(),
    ]
    return "\n".join("\n".join(part) + "\n" for part in parts)


def _own(entry: metadata.EntryPoint) -> bool:
    return entry.dist is not None and entry.dist.name == "sglora"


def _contents() -> list[str]:
    titles = ["Commands", "Runtime options", "Settings and environment", "Recipes", "Generators", "Other plugins"]
    titles += ["Exit codes", "Files", "Hooks and contracts"]
    return [f"* [{title}](#{title.lower().replace(' ', '-')})" for title in titles]


# Commands


def _commands() -> list[str]:
    lines = [
        "## Commands",
        "",
        "Every command also has `-h`, `--help`, and `-q`, `--quiet`, which hides progress and notes.",
        "Warnings and errors remain.",
        "",
    ]
    context = click.Context(main, info_name="sglora")
    for name in COMMANDS:
        lines += _command(f"sglora {name}", main.get_command(context, name))  # type: ignore[arg-type]
    return lines[:-1]


def _command(name: str, command: click.Command) -> Iterator[str]:
    yield from [f"### {name}", "", *_help(command), ""]
    if not isinstance(command, click.Group) or command.invoke_without_command:
        yield from _usage(name, command)
    if isinstance(command, click.Group):
        for sub in sorted(command.commands):
            yield from _command(f"{name} {sub}", command.commands[sub])


def _usage(name: str, command: click.Command) -> Iterator[str]:
    words = [_argument(p) for p in command.params if isinstance(p, click.Argument)]
    yield from ["```", " ".join([name, *words, "[OPTIONS]"]), "```", ""]
    options = [p for p in command.params if isinstance(p, click.Option) and not p.hidden and p.name != "quiet"]
    shared = {p.name for p in options} >= set(RUNTIME)
    yield from (_option(p) for p in options if not (shared and p.name in RUNTIME))
    if shared:
        yield "* the [runtime options](#runtime-options)"
    yield ""


def _help(command: click.Command) -> list[str]:
    """The help text as Markdown: what stands after a \\b becomes a block."""
    lines: list[str] = []
    for part in inspect.cleandoc(command.help or "").split("\n\n"):
        if part.startswith("\b"):
            part = "```\n" + part.removeprefix("\b").strip("\n") + "\n```"
        lines += [*part.split("\n"), ""]
    return lines[:-1]


def _argument(param: click.Argument) -> str:
    return param.make_metavar(click.Context(click.Command("sglora")))


def _option(param: click.Option) -> str:
    names = ", ".join([*param.opts, *param.secondary_opts])
    value = "" if param.is_flag else f" {param.metavar or _kind(param.type)}"
    shown = param.default if isinstance(param.default, (int, float, str, Path)) else None
    stated = shown in (None, "") or isinstance(shown, bool) or "Default: " in (param.help or "")
    default = "" if stated else f" Default: `{shown}`."
    needed = " Required." if param.required else ""
    return f"* `{names}{value}`: {_sentence(param.help or '')}{needed}{default}"


def _kind(kind: click.ParamType) -> str:
    if isinstance(kind, click.Choice):
        return "|".join(map(str, kind.choices))
    return {"integer": "N", "integer range": "N", "float": "X", "float range": "X"}.get(kind.name, kind.name.upper())


def _sentence(text: str) -> str:
    return text if text.endswith((".", "?", "!")) else text + "."


# Knobs: what a dataclass of config.py, or of a plugin, says of itself


def _doc(thing: Any) -> str:
    return " ".join((thing.__doc__ or "").split())


def _knobs(kind: Any, option: bool = False, fixed: Mapping[str, Any] | None = None) -> list[str]:
    """A line a field: name, default, sentence, range."""
    lines = []
    for spec in dataclasses.fields(kind):
        name = "--" + spec.name.replace("_", "-") if option else spec.name
        default = (fixed or {}).get(spec.name, spec.default)
        shown = "" if option and default in ("", False) else f" = {_toml(default)}"
        lines.append(f"* `{name}{shown}`: {_sentence(spec.metadata.get('help', ''))}{_range(spec.metadata)}")
    return lines


def _toml(value: Any) -> str:
    return f'"{value}"' if isinstance(value, str) else str(value).lower() if isinstance(value, bool) else f"{value:g}"


def _range(metadata: Mapping[str, Any]) -> str:
    ends = [
        f"{word} {metadata[key]:g}" for key, word in (("least", "at least"), ("most", "at most")) if _is(metadata, key)
    ]
    choices = f" One of {', '.join(metadata['choices'])}." if metadata.get("choices") else ""
    return (f" ({', '.join(ends)})" if ends else "") + choices


def _is(metadata: Mapping[str, Any], key: str) -> bool:
    return metadata.get(key) is not None


# Sections


def _environment() -> list[str]:
    known = {f"SGLORA_{spec.name.upper()}" for spec in dataclasses.fields(settings.Settings)} | set(ENVIRONMENT)
    sources = [path for place in ("sglora_cli", "plugins") for path in (ROOT / place).rglob("*.py")]
    asked = re.compile(r'environ(?:\.get\(|\[)"(SGLORA_[A-Z_]+)"')
    used = {name for path in sources for name in asked.findall(path.read_text(encoding="utf-8"))}
    assert used <= known, f"tests/docs/reference.py says nothing of {used - known}"
    lines = [
        "## Settings and environment",
        "",
        "Settings are strings in `settings.toml` of the user configuration. An environment variable overrides a",
        "setting, and an option overrides both.",
        "",
    ]
    texts = _attributes(settings.Settings)
    for spec in dataclasses.fields(settings.Settings):
        text = spec.metadata.get("help") or texts[spec.name]
        lines.append(f"* `{spec.name} = {_toml(spec.default)}`, `SGLORA_{spec.name.upper()}`: {text}")
    return [
        *lines,
        "",
        "Variables without a setting:",
        "",
        *(f"* `{name}`: {text}" for name, text in ENVIRONMENT.items()),
    ]


def _attributes(kind: type) -> dict[str, str]:
    """Fields of a class, with the texts that stand below them."""
    body = ast.parse(textwrap.dedent(inspect.getsource(kind))).body[0].body  # type: ignore[attr-defined]
    attributes = {}
    for node, after in zip(body, [*body[1:], None], strict=True):
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            is_text = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
            attributes[node.target.id] = " ".join(after.value.value.split()) if is_text else ""  # type: ignore[union-attr]
    return attributes


def _block(text: str, language: str = "") -> list[str]:
    return [f"```{language}", *text.strip("\n").split("\n"), "```"]


def _after(doc: str | None, start: str) -> str:
    """A module's docstring from a line that begins with `start`."""
    text = inspect.cleandoc(doc or "")
    return textwrap.dedent(text[text.index(start) :])


def _recipe(host: Host) -> list[str]:
    lines = ["## Recipes", "", "`sglora pack init` writes a commented one.", ""]
    lines += _block(_after(recipe_parser.__doc__, "backbone = "), "toml")
    tables: dict[str, type] = {
        "lora": config.LoraConfig,
        "train": config.TrainConfig,
        "prior": config.PriorConfig,
        "tasks": config.PhraseConfig,
    }
    for table, kind in tables.items():
        lines += ["", f"### [{table}]", "", _doc(kind), "", *_knobs(kind)]
    known: dict[type, str] = {}
    for name in host.generators:
        if (kind := host.generators[name].config) is not None:
            same = [f"The keys of [generators.{known[kind]}]."] if kind in known else [_doc(kind), "", *_knobs(kind)]
            lines += ["", f"### [generators.{name}]", "", *same]
            known.setdefault(kind, name)
    return lines


def _generators(host: Host) -> list[str]:
    lines = [
        "## Generators",
        "",
        "Use `--generator NAME`, or `NAME:setting=value/setting=value` with settings. `--baselines` takes several.",
        "",
    ]
    seen: dict[type, list[str]] = {}
    for name in host.generators:
        one = host.generators[name]
        marks = " Trained when a pack is built." if one.learns else ""
        marks += f" Needs {need} of the unseen task." if (need := one.needs) else ""
        lines.append(f"* `{name}` ({one.label}): {_sentence(one.summary)}{marks}")
        rule = getattr(one, "rule", None)
        if isinstance(one, contracts.HasMembers) and dataclasses.is_dataclass(rule):
            seen.setdefault(type(rule), []).append(name)
    for kind, names in seen.items():
        same = ", ".join(f"`{name}`" for name in names)
        lines += ["", f"Settings of {same}. {_doc(kind)}", "", *_rule(kind)]
    return lines


def _rule(kind: type) -> Iterable[str]:
    choices = getattr(inspect.getmodule(kind), "CHOICES", {})
    for spec, line in zip(dataclasses.fields(kind), _knobs(kind), strict=True):  # type: ignore[arg-type]
        known = choices.get(spec.name, ()) if get_type_hints(kind)[spec.name] is str else ()
        yield line + (f" One of {', '.join(known)}." if known else "")


def _others(host: Host) -> list[str]:
    lines = []
    for registry in (host.backbones, host.datasets, host.captioners, host.reporters):
        lines += [f"* {registry.kind} `{name}`: {_sentence(registry[name].summary)}" for name in registry]
    return lines


def _exit_codes() -> list[str]:
    tree = _after(errors.__doc__, "SgloraError\n").split("\n\n")[0]
    return [
        "## Exit codes",
        "",
        "0 is success, 1 is a bug (with a traceback), 130 is interrupted and 143 terminated.",
        "After both, finished steps are kept.",
        "141 means that the program at the other end of a pipe has ended. The other codes are those of errors:",
        "",
        *_block(tree),
        "",
        "What to do about each: [how-to-errors](how-to-errors.md).",
    ]


def _files() -> list[str]:
    adapter = "A `.safetensors` file with PEFT's tensor names and one metadata key, `sglora`, which is sorted JSON."
    required = sorted(manifest.FIELDS)
    assert required == sorted(PACK), "tests/docs/reference.py and manifest.py differ in what pack.json holds"
    return [
        *["## Files", "", "### Adapter", "", adapter, "", *(f"* `{key}`: {text}" for key, text in ADAPTER.items())],
        *["", "### Pack", "", *_block(_after(pack.__doc__, "<pack>/")), "", "`pack.json`:", ""],
        *[*(f"* `{key}`: {text}" for key, text in PACK.items()), "", "### Rows", ""],
        *["`sglora bench --rows FILE` writes JSON lines:", "", *_block(_after(rows_file.__doc__, "{"))],
    ]


def _contracts() -> list[str]:
    lines = ["## Hooks and contracts", "", "[plugins](plugins.md) explains how to write a plugin. The hooks:", ""]
    for name, hook in vars(hookspecs).items():
        if name.startswith("sglora_"):
            lines.append(f"* `{name}() -> {inspect.signature(hook).return_annotation}`: {_doc(hook)}")
    kinds = [*vars(contracts).values(), *vars(values).values()]
    protocols = [
        Site,
        *(k for k in kinds if inspect.isclass(k) and k.__module__ in (contracts.__name__, values.__name__)),
    ]
    source = "\n\n\n".join(inspect.getsource(kind).rstrip() for kind in protocols)
    return [
        *lines,
        "",
        "The contracts of their values, from `sglora_cli/plugin/contracts.py` and `values.py`:",
        "",
        *_block(source, "python"),
    ]


def plugin_guide() -> str:
    """plugins/README.md as a page. Only pages come with the program, so a link to another file becomes its path."""
    text = (ROOT / "plugins/README.md").read_text(encoding="utf-8")
    heading, rest = text.split("\n", 1)
    metadata = "How to write a plugin, and how to check it with the conformance kit."
    note = "Paths on this page refer to the source distribution, which also contains the tests.\n"
    note += "In an installation, a folder such as `plugins/sglora_kde` is the package `sglora_kde`."
    return f"{heading}\n\n{metadata}\n\n{note}\n{_LINK.sub(_page_or_path, rest)}"


_LINK = re.compile(r"\[([^]]*)\]\((?!https?://|#)([^)#]+)(#[^)]*)?\)")


def _page_or_path(link: re.Match[str]) -> str:
    name, target, anchor = link[1], (ROOT / "plugins" / link[2]).resolve(), link[3] or ""
    if target.parent == FOLDER:
        return f"[{name}]({target.name}{anchor})"
    return f"`{target.relative_to(ROOT).as_posix()}`"


def index() -> str:
    """The list of the pages, as `sglora docs` prints it, with links."""
    pages = all_pages()
    lines = ["# Documentation", "", "All pages of the documentation, by section.", ""]
    lines += ["`sglora docs` prints this list, and `sglora docs NAME` prints a page. Both work offline.", ""]
    for title, names in SECTIONS.items():
        known = [pages[name] for name in names if name in pages]
        lines += [f"## {title}", "", *(f"* [{page.name}]({page.name}.md): {page.summary}" for page in known), ""]
        if "tutorial" in names:
            lines += ["The tutorial explains the project's terms, which the other pages use."]
            lines += ["It is also a notebook, [tutorial.ipynb](tutorial.ipynb).", ""]
    return "\n".join(lines)


PAGES = {"reference.md": reference, "plugins.md": plugin_guide, f"{INDEX}.md": index}

if __name__ == "__main__":
    for name, written in PAGES.items():
        (FOLDER / name).write_text(written(), encoding="utf-8")
        print(FOLDER / name)
