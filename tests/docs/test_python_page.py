"""The examples of the page on Python run, one after the other, and say what it says."""

from __future__ import annotations

from console import blocks

from sglora_cli.cli.commands.docs import FOLDER

PRINTED = """\
starter because it is bundled; no pack is built yet
torch.Size([1, 1280])
[PosixPath('pug.safetensors')]
2
84.8% coco/hot dog
5.5% pets/american bulldog
5.3% coco/cat
4.4% pets/american pit bull terrier
()
torch.Size([2, 2]) torch.Size([1, 2, 2])
visual.project_image torch.Size([256, 384])
safetensors 2 True
36 2 PriorConfig(k=4, tau=0.02, space='meaning')
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
