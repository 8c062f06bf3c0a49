"""What plugins say of their downloads: terms as their publishers state them, and bytes."""

from __future__ import annotations

import pytest
from distributions import install

from sglora_cli.config import RuntimeConfig
from sglora_cli.errors import PluginError
from sglora_cli.plugin.contracts import SaysDownload, SaysTerms
from sglora_cli.plugin.host import Host

ODD = """
from sglora_cli.api import Terms, hookimpl


class Odd:
    name = "odd"
    summary = "says odd things"

    def tasks(self, root):
        return []

    def terms(self):
        return ["CC0"]


class Escaping(Odd):
    name = "escaping"

    def terms(self):
        return [Terms("photos", "CC0\\x1b[31m", "https://example.org/")]


@hookimpl
def sglora_datasets():
    return [Odd(), Escaping()]
"""


def test_the_terms_of_what_is_downloaded_are_facts_of_their_publishers():
    host = Host.load()
    terms = {name: {one.what: one.licence for one in host.datasets[name].terms()} for name in ("coco", "pets")}
    assert terms["pets"] == {"photos and annotations": "CC BY-SA 4.0"}
    assert terms["coco"]["annotations and captions"] == "CC BY 4.0"
    assert terms["coco"]["photos"].startswith("the terms of use of Flickr")
    stated = [one.licence for name in ("flowers", "cifar100") for one in host.datasets[name].terms()]
    assert stated == ["", ""]  # their pages state no licence
    assert [one.licence for one in host.backbones["clip-vit-b-16"].terms()] == ["MIT"]
    assert [one.licence for one in host.captioners["qwen2-vl-2b"].terms()] == ["Apache-2.0"]


def test_what_can_be_fetched_has_terms():
    host = Host.load()
    for name in ("coco", "pets", "flowers", "cifar100"):
        assert isinstance(host.datasets[name], SaysTerms)
        assert all(one.url.startswith("https://") and one.what for one in host.datasets[name].terms())


def test_clips_weights_are_four_bytes_a_parameter(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    backbone = Host.load().backbones["clip-vit-b-16"]
    assert isinstance(backbone, SaysDownload)
    monkeypatch.setattr(type(backbone._value), "absent", lambda self, runtime: "they are not here")
    assert backbone.download_bytes(RuntimeConfig()) == 4 * 149_620_737
    assert backbone.download_bytes(RuntimeConfig(weights="a file")) == 0


@pytest.mark.parametrize(
    ("name", "wrong"), [("odd", "must return Terms"), ("escaping", "must return printable strings")]
)
def test_wrong_terms_are_the_plugins_fault(site, name, wrong):
    install(site, "sglora-odd", "sglora_odd", ODD)
    with pytest.raises(PluginError, match=wrong):
        Host.load().datasets[name].terms()
