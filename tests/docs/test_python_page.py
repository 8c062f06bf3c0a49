"""The examples of the page on Python run, one after the other, and say what it says."""

from __future__ import annotations

from console import blocks

from sglora_cli.cli.commands.docs import FOLDER

PRINTED = """\
starter because it is bundled; no pack is built yet
torch.Size([1, 9216])
[PosixPath('pug.safetensors')]
2
62.5% pets/american pit bull terrier
18.3% pets/american bulldog
12.4% birds/Eared Grebe
6.8% pets/havanese
warning: what 'cvae' makes with pack 'starter' hardly depends on the sentence: adapters for 22 tasks have a mean \
cosine of 0.998; `sglora bench` measures what the right sentence gains
torch.Size([2, 2]) torch.Size([1, 2, 2])
visual.blocks.3.v torch.Size([192, 192])
safetensors 2 True
28 2 PriorConfig(k=4, tau=0.05, space='embedding')
torch.Size([2, 9216])
True
[]
no pack named 'strater' - did you mean 'starter'?
"""


def test_the_examples_of_the_page_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for block in blocks(FOLDER / "python.md"):
        if block.language == "python":
            exec(compile("\n" * (block.number - 1) + block.text, "python.md", "exec"), names)
    assert capsys.readouterr().out.replace("WindowsPath", "PosixPath") == PRINTED
