"""`sglora plugins`: lists, diagnoses, creates and checks plugins."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from sglora_cli.cli import completion
from sglora_cli.cli.group import Group
from sglora_cli.cli.options import PATH, App, json_option, out_option
from sglora_cli.cli.output import echo, marked, print_json, print_rows, say
from sglora_cli.config import RuntimeConfig, options_of
from sglora_cli.errors import PluginError, UsageError
from sglora_cli.plugin.host import PLUGIN_KINDS, Host
from sglora_cli.system import settings


@click.group("plugins", cls=Group)
def command() -> None:
    """List, create and check plugins, and find broken ones.

    Plugins provide backbones, data sets, captioners, generators and reporters.

    \b
    sglora plugins list
    sglora plugins doctor
    """


@command.command("list")
@json_option()
@click.pass_obj
def list_(app: App, as_json: bool) -> None:
    """List everything that plugins provide, by kind.

    \b
    sglora plugins list
    """
    host: Host = app.host
    rows = [
        {"kind": registry.kind, "name": name, "plugin": registry.owner(name), "summary": registry[name].summary}
        for registry in host.registries
        for name in registry
    ]
    if as_json:
        print_json({"plugins": rows})
    else:
        cells = [[r["kind"], r["name"], r["summary"], r["plugin"]] for r in rows]
        print_rows(("kind", "name", "summary", "plugin"), cells, words=("summary",))


@command.command("doctor")
@json_option()
def doctor(as_json: bool) -> None:
    """List broken plugins, each with the reason and the fix.

    The exit code is 7 if a plugin is broken. Remarks are hints for plugin authors.

    \b
    sglora plugins doctor
    """
    host = Host.load()
    broken = {problem.plugin for problem in host.problems}
    if as_json:
        problems, remarks = ([asdict(one) for one in reports] for reports in (host.problems, host.remarks))
        print_json({"plugins": host.plugins, "problems": problems, "remarks": remarks})
    else:
        for name, origin in host.plugins.items():
            click.echo(marked(f"{'broken' if name in broken else 'ok':<7} {name}  [{origin}]"))
        for kind, reports in (("problem", host.problems), ("remark", host.remarks)):
            for one in reports:
                echo(f"{kind:<7} {one.plugin}: {one.reason}")
                echo(f"{'fix':<7} {one.plugin}: {one.hint}")
    if broken:
        raise PluginError(f"broken: {', '.join(sorted(broken))}", "follow the fixes above; the other plugins work")


@command.command("new")
@click.argument("name")
@click.option("--kind", type=click.Choice(PLUGIN_KINDS), default="generator", show_default=True, help="Kind of plugin.")
@out_option("Parent folder for the plugin's folder. Default: the working folder.", "--output", default=".")
@json_option()
@click.pass_obj
def new(app: App, name: str, kind: str, out: Path, as_json: bool) -> None:
    """Create a working plugin distribution to start from.

    It is called sglora-NAME and includes tests that pass.

    \b
    sglora plugins new birds --kind dataset
    pip install -e "sglora-birds[test]" && cd sglora-birds && pytest
    """
    from sglora_cli.cli.scaffold import new_plugin, value_name

    value, registry = value_name(name), next(one for one in app.host.registries if one.kind == kind)
    if value in registry:
        raise UsageError(
            f"a {kind} named {value!r} already exists in plugin {registry.owner(value)!r}", "choose another name"
        )
    folder = new_plugin(name, kind, out)
    if as_json:
        print_json({"folder": str(folder), "kind": kind, "name": value})
        return
    echo(folder)
    say(f"created a working {kind}; test it with: pip install -e '{folder}[test]' && cd '{folder}' && pytest")


@command.command("check")
@click.argument("name", shell_complete=completion.names(completion.plugged))
@click.option("--kind", type=click.Choice(PLUGIN_KINDS), help="Kind of NAME. Required if several kinds have that name.")
@click.option("--path", type=PATH, help="Folder with data, required to check a data set.")
@options_of(RuntimeConfig, "runtime")
@json_option()
@click.pass_obj
def check(app: App, name: str, kind: str | None, path: Path | None, runtime: RuntimeConfig, as_json: bool) -> None:
    """Run the conformance checks on NAME.

    NAME is a name listed by `sglora plugins list`. This command is for plugin authors. The exit code is 7 if a check
    fails.

    \b
    sglora plugins check starter
    sglora plugins check folder --path photos
    """
    from sglora_cli.testing import run_check, trials

    registry = app.host.registry_of(name, kind)
    chosen = settings.runtime(runtime, name) if registry.kind == "backbone" else runtime
    rows = []
    for one, arguments in trials(registry.kind, registry[name], chosen, path):
        rows.append(
            {"check": one.__name__, "asks": " ".join((one.__doc__ or "").split()), "wrong": run_check(one, *arguments)}
        )
        if not as_json:
            click.echo(marked(f"{'failed' if rows[-1]['wrong'] else 'ok':<7} {one.__name__}"))
    if as_json:
        print_json({"kind": registry.kind, "name": name, "checks": rows})
    if wrong := [row for row in rows if row["wrong"]]:
        raise PluginError(f"{registry.kind} {name!r}: " + "; ".join(f"{r['check']}: {r['wrong']}" for r in wrong))
