"""`sglora plugins`: what is installed, and what is broken."""

from __future__ import annotations

import click

from sglora_cli import settings
from sglora_cli.cli import App
from sglora_cli.configs import RuntimeConfig, options_of
from sglora_cli.errors import PluginError
from sglora_cli.host import Host
from sglora_cli.printing import print_json, print_rows


@click.group("plugins")
def command() -> None:
    """Plugins: backbones, data sets, captioners, generators, reporters.

    \b
    sglora plugins list
    sglora plugins doctor
    """


@command.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_obj
def list_(app: App, as_json: bool) -> None:
    """Everything plugins offer, by kind.

    \b
    sglora plugins list
    """
    host: Host = app.host
    rows = [
        {"kind": registry.kind, "name": name, "plugin": registry.owner(name), "summary": registry[name].summary}
        for registry in (host.backbones, host.datasets, host.captioners, host.generators, host.reporters)
        for name in registry
    ]
    if as_json:
        print_json({"plugins": rows})
    else:
        print_rows(
            ("kind", "name", "summary", "plugin"), [[r["kind"], r["name"], r["summary"], r["plugin"]] for r in rows]
        )


@command.command("doctor")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def doctor(as_json: bool) -> None:
    """Name every broken plugin and its reason; exit code 7 if there is one.

    \b
    sglora plugins doctor
    """
    host = Host.load()
    if as_json:
        problems = [{"plugin": p.plugin, "reason": p.reason} for p in host.problems]
        print_json({"plugins": host.plugins, "problems": problems})
    else:
        broken = {problem.plugin for problem in host.problems}
        for name, origin in host.plugins.items():
            click.echo(f"{'broken' if name in broken else 'ok':<7} {name}  [{origin}]")
        for problem in host.problems:
            click.echo(f"problem {problem.plugin}: {problem.reason}")
    if host.problems:
        names = sorted({problem.plugin for problem in host.problems})
        raise PluginError(f"broken: {', '.join(names)}", "uninstall or update it; the other plugins work")


@command.command("check")
@click.argument("backbone")
@options_of(RuntimeConfig, "runtime")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_obj
def check(app: App, backbone: str, runtime: RuntimeConfig, as_json: bool) -> None:
    """Run the conformance kit on BACKBONE: for plugin authors. Exit code 7 if a check fails.

    \b
    sglora plugins check starter
    """
    from sglora_cli.testing import BACKBONE_CHECKS, run_check

    model = app.host.backbones[backbone].load(settings.runtime(runtime, backbone))
    rows = []
    for one in BACKBONE_CHECKS:
        rows.append(
            {"check": one.__name__, "asks": " ".join((one.__doc__ or "").split()), "wrong": run_check(one, model)}
        )
        if not as_json:
            click.echo(f"{'failed' if rows[-1]['wrong'] else 'ok':<7} {one.__name__}")
    if as_json:
        print_json({"backbone": backbone, "checks": rows})
    if wrong := [row for row in rows if row["wrong"]]:
        raise PluginError(f"backbone {backbone!r}: " + "; ".join(f"{r['check']}: {r['wrong']}" for r in wrong))
