"""`sglora generate` makes adapters for a description."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sglora_cli.cli import completion
from sglora_cli.cli.options import (
    PATH,
    App,
    FilePath,
    backbone_option,
    force_option,
    json_option,
    out_option,
    pack_option,
)
from sglora_cli.cli.output import echo, print_json, say, say_passed_over
from sglora_cli.config import (
    ADAPTER_FORMATS,
    SPACES,
    SPACES_HELP,
    GenerateConfig,
    OneOf,
    PriorConfig,
    RuntimeConfig,
    options_of,
)
from sglora_cli.errors import UsageError
from sglora_cli.files.escape import shell_word
from sglora_cli.system import settings

if TYPE_CHECKING:
    from sglora_cli.data.description import Description
    from sglora_cli.generate.generated import Generated
    from sglora_cli.generate.session import Session
    from sglora_cli.pack.pack import Pack


@dataclass(frozen=True)
class GenerateRequest:
    """Description of the task on the command line."""

    text: tuple[str, ...]
    also: tuple[str, ...]
    file: Path | None
    names: tuple[str, ...]
    images: Path | None

    @property
    def many(self) -> bool:
        """Whether standard input has one task per line."""
        return self.text == ("-",)

    def check(self, out: str | None) -> None:
        words = bool(self.also or self.file or self.names)
        if not (self.text or words or self.images):
            raise UsageError("the description is missing", 'sglora generate "a photo of a pug"')
        if self.images and (self.text or words):
            raise UsageError("--images cannot be combined with sentences", "pass either sentences or --images")
        if self.many and words:
            raise UsageError("`-` reads all descriptions from standard input", "leave out --also, --file and --name")
        if self.many and out and "{n}" not in out:
            raise UsageError(
                "-o has no {n} to name several adapters", 'pass -o "{n}.safetensors", where {n} is the line number'
            )

    def description(self, pack: Pack) -> Description:
        from sglora_cli.data.description import Description, read_texts
        from sglora_cli.files.images import image_files
        from sglora_cli.pack.recipe import TEMPLATE

        if self.images:
            photos, passed_over = image_files(self.images)
            say_passed_over(passed_over)
            return Description(images=tuple(photos.values()))
        template = str(pack.manifest["recipe"].get("template", TEMPLATE))
        texts = [" ".join(self.text)] if self.text else []
        texts += [template.replace("{name}", name) for name in self.names]
        return Description.of(*texts, *self.also, *(read_texts(self.file) if self.file else []))


@click.command("generate")
@click.argument("text", nargs=-1)
@click.option(
    "--also",
    multiple=True,
    help='Another sentence for the same task, with an optional weight as in "0.5 | a small dog"; repeatable.',
)
@click.option("--file", type=PATH, help="File with more sentences, one per line, or a .json list or object.")
@click.option("--name", "names", multiple=True, help="Class name to insert into the pack's template; repeatable.")
@click.option("--images", type=PATH, help="Folder whose photos describe the task instead of sentences.")
@out_option("File to write, or folder for PEFT if it ends in /. Default: a file in the user cache.", type=FilePath())
@click.option(
    "--format",
    "format_name",
    type=OneOf("format", ADAPTER_FORMATS),
    default="",
    help="Format to write. Default: by the ending of -o.",
)
@pack_option()
@backbone_option()
@click.option(
    "--generator",
    default="",
    help="Generator to use, such as cvae or ties:density=0.5. Default: the pack's.",
    shell_complete=completion.names(completion.generators),
)
@click.option("--k", type=int, help="K, number of experts in the prior. Default: the pack's.")
@click.option("--tau", type=float, help="Temperature of the experts' weights. Default: the pack's.")
@click.option(
    "--space",
    type=OneOf("space", SPACES),
    default="",
    help=f"Space in which the sentence is compared with the experts' sentences: {SPACES_HELP}. Default: the pack's.",
)
@options_of(GenerateConfig)
@options_of(RuntimeConfig, "runtime")
@click.option(
    "--explain",
    is_flag=True,
    help="Also describe the prior, how well the experts cover the task, and what the adapters resemble.",
)
@force_option("Overwrite existing files, and use a generator even if it looks untrained.")
@json_option("`generate -` prints one object per line.")
@click.pass_obj
def command(
    app: App,
    text: tuple[str, ...],
    also: tuple[str, ...],
    file: Path | None,
    names: tuple[str, ...],
    images: Path | None,
    out: str | None,
    format_name: str,
    pack: str,
    backbone: str,
    generator: str,
    k: int | None,
    tau: float | None,
    space: str,
    explain: bool,
    force: bool,
    as_json: bool,
    config: GenerateConfig,
    runtime: RuntimeConfig,
) -> None:
    """Make an adapter for the task that TEXT describes.

    The pack's generator makes the adapter. Most generators use the prior, which is the weighted mean and variance of
    the K experts with the most similar sentences. If TEXT is `-`, the command makes one adapter per line of standard
    input.

    \b
    sglora generate "a photo of a pug" -o pug.safetensors
    sglora generate a photo of a tiger lily --samples 5 --explain
    sglora generate "a photo of a pug" --also "0.5 | a small dog with a flat face" -o pug-peft/
    sglora generate --name pug --name chihuahua        # one task of two classes
    sglora generate - -o "adapters/{n}.safetensors" < sentences.txt
    """
    from sglora_cli.adapter.formats import check_target, format_of
    from sglora_cli.pack.loaded import LoadedPack

    request = GenerateRequest(text, also, file, names, images)
    request.check(out)
    if images and space:
        raise UsageError(
            f"--space {space} compares sentences and cannot be combined with --images", "leave out --space"
        )
    if format_name and not out:
        raise UsageError("--format requires -o", "pass -o FILE too")
    format = format_of(out or "x.safetensors", format_name)
    if out and not request.many:
        check_target(Path(out), format, force)
    runtime = settings.full_precision(runtime) if format.name != "safetensors" else runtime
    loaded = LoadedPack.open(app.host, pack, runtime, backbone)
    loaded.usable(generator)  # fail before torch is imported
    from sglora_cli.generate.session import Session

    session = Session(loaded, generator, force)
    prior_config = _prior(session.pack, k, tau, space)

    def save(number: int, generated: Generated) -> list[Path]:
        target = Path(out.replace("{n}", str(number)) if request.many else out) if out else None
        for path in generated.paths(target) if target else []:
            check_target(path, format, force)
        return generated.save(target, format.name, session.model)

    if request.many:
        from sglora_cli.generate.many import answers

        lines = sys.stdin.buffer
        _print_answers(session, answers(session, lines, save, config, prior_config), explain, as_json)
        return
    generated = session.generate(request.description(session.pack), config, prior_config)
    paths = save(0, generated)
    if as_json:
        print_json(_facts(session, generated, paths, explain))
    else:
        _print_generated(session, generated, paths, explain)


def _prior(pack: Pack, k: int | None, tau: float | None, space: str) -> PriorConfig:
    own = pack.prior_config
    return PriorConfig(own.k if k is None else k, own.tau if tau is None else tau, space or own.space)


def _facts(session: Session, generated: Generated, paths: list[Path], explain: bool) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "files": [str(path) for path in paths],
        "pack": session.pack.name,
        "pack_because": session.reason,
        "generator": session.generator.name,
        "experts": [
            {
                "task": session.pack.experts.names[row],
                "weight": round(float(a), 6),
                "similarity": round(float(generated.prior.similarity_E[row]), 6),
            }
            for row, a in zip(generated.prior.rows, generated.prior.alpha_K, strict=True)
            if session.mixes_experts
        ],
        "warnings": list(generated.warnings),
        "about": generated.metadata,
    }
    if explain:
        from sglora_cli.generate.explain import explanation

        facts["explained"] = explanation(session.pack, generated, session.dependence)
    return facts


def _print_generated(session: Session, generated: Generated, paths: list[Path], explain: bool) -> None:
    say(f"pack       {session.pack.name} ({session.reason})")
    say(f"generator  {session.generator.name}: {session.generator.summary}")
    if session.mixes_experts:
        say("experts    weight  similarity")
        prior = generated.prior
        for row, alpha in zip(prior.rows, prior.alpha_K, strict=True):
            say(f"           {alpha:6.1%}  {prior.similarity_E[row]:10.3f}  {session.pack.experts.names[row]}")
    _print_notes(session, generated, explain)
    for path in paths:
        echo(path)
    if sys.stderr.isatty():  # show an interactive user how to use the adapter
        from sglora_cli.adapter.library import kept_folder

        call = paths[0].name if paths[0].parent == kept_folder() else str(paths[0])
        say(f'next       search photos of this task: sglora search FOLDER "..." --adapter {shell_word(call)}')


def _print_notes(session: Session, generated: Generated, explain: bool) -> None:
    if explain:
        from sglora_cli.generate.explain import explanation, to_lines

        for line in to_lines(explanation(session.pack, generated, session.dependence)):
            say(line)
    for warning in generated.warnings:
        say(f"warning: {warning}")


def _print_answers(session: Session, answers: Any, explain: bool, as_json: bool) -> None:
    """Print each answer as soon as it is ready. Raises at the end if any line failed."""
    from sglora_cli.generate.many import failed

    count, bad = 0, []
    for answer in answers:
        count += 1
        if answer.error:
            bad.append(answer)
            if not as_json:
                say(f"error: line {answer.line}: {answer.error.message}")
            facts = {"line": answer.line, **answer.error.to_json()}
        elif as_json:
            facts = {"line": answer.line, **_facts(session, answer.generated, list(answer.paths), explain)}
        else:
            _print_notes(session, answer.generated, explain)
            for path in answer.paths:
                echo(path)
        if as_json:
            print_json(facts, lines=True)
    if bad:
        raise failed(bad, count)
