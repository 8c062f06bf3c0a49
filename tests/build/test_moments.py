"""The moments of a pack, against means written out, and `pack update`, which adds them to a pack without."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from pack_folders import without

from sglora_cli.build.prerequisites import plan_tasks
from sglora_cli.data.features import Features
from sglora_cli.errors import BadFile
from sglora_cli.files.tensors import load_tensors, save_tensors
from sglora_cli.pack.content.learned import LEARNED
from sglora_cli.pack.content.moments import MOMENTS, load_moments
from sglora_cli.pack.pack import Pack
from sglora_cli.pack.recipe_parser import parse
from sglora_cli.plugin.host import Host


@pytest.fixture
def built(clipling, toys, recipe, run) -> Path:
    result = run("pack", "build", recipe, "--data", toys, "--backbone", "clipling", "--limit", 2)
    assert result.exit_code == 0, result.output
    return Path(result.stdout.splitlines()[-1])


def test_moments_are_means_over_training_photos_and_their_captions(built, toys):
    pack, host = Pack(built), Host.load()
    model = host.backbones["clipling"].load(None)
    found = pack.experts.moments
    plan = plan_tasks(host, parse(pack.name, pack.manifest["recipe"]), toys)
    tasks = {task.key: task for roles in plan for role, some in roles.items() for task in some if role != "unseen"}
    assert set(found.tasks) == set(tasks)
    stems = []
    for row, key in enumerate(found.tasks):
        content = Features.of(model, key, tasks[key].photos["train"]).tensors(model)
        stems.append(content.stem_N)
        images = torch.stack([model.encode_image(stem[None])[0] for stem in content.stem_N])
        torch.testing.assert_close(found.images_TD[row], images.mean(0), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(found.captions_TD[row], content.text_CD.mean(0), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(found.sentences_TD[row], model.encode_text([tasks[key].description])[0])
    assert torch.equal(found.projection_DI, model.projection_weight())
    p_NI = model.unprojected(torch.cat(stems)).double()
    length_N = (p_NI @ found.projection_DI.double().T).norm(dim=1)
    best = torch.linalg.lstsq(p_NI, length_N[:, None]).solution[:, 0]
    error, least = ((p_NI @ r - length_N).square().mean().sqrt() for r in (found.length_I.double(), best))
    assert float(error) <= float(least) + 0.05 * float(length_N.mean())


def test_update_gives_an_older_pack_the_very_files_of_a_new_one(built, toys, run):
    whole = {file: (built / file).read_bytes() for file in (MOMENTS, LEARNED)}
    without(built, MOMENTS, LEARNED)
    assert Pack(built).experts.moments is None
    result = run("generate", "a mug", "--generator", "all-but-the-task", "--pack", built)
    assert result.exit_code == 6
    assert "hint: add them with `sglora pack update PACK --data DIR`, or build the pack again\n" in result.stderr
    result = run("pack", "update", built, "--data", toys)
    assert (result.exit_code, result.stdout) == (0, f"{built}\n")
    assert result.stderr.splitlines()[-1] == (
        "added      moments of its tasks and hashes of the photos it learned from"
    )
    assert {file: (built / file).read_bytes() for file in whole} == whole
    assert run("pack", "verify", built).exit_code == 0
    again = run("pack", "update", built)
    assert (again.exit_code, again.stdout) == (0, f"{built}\n")
    assert "nothing to add" in again.stderr


def test_update_refuses_other_photos(built, toys, run):
    without(built, MOMENTS)
    before = {path: path.read_bytes() for path in built.rglob("*") if path.is_file()}
    captions = toys / "toys" / "captions.jsonl"
    lines = captions.read_text().splitlines(keepends=True)
    first = next(n for n, line in enumerate(lines) if '"train"' in line)
    captions.write_text("".join(lines[:first] + lines[first + 1 :]))
    result = run("pack", "update", built, "--data", toys)
    assert result.exit_code == 5
    assert "training photos here, but " in result.stderr
    assert {path: path.read_bytes() for path in built.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("spoil", ["rows", "nothing", "name"])
def test_a_file_that_is_not_of_moments_is_refused(built, tmp_path, spoil):
    shutil.copy(built / MOMENTS, tmp_path / MOMENTS)
    tensors, metadata = load_tensors(tmp_path / MOMENTS)
    if spoil == "rows":
        tensors = {**tensors, "images": tensors["images"][1:]}
    elif spoil == "nothing":
        metadata = {**metadata, "tasks": []}
    else:
        metadata = {**metadata, "projection": ""}
    save_tensors(tmp_path / MOMENTS, tensors, metadata)
    with pytest.raises(BadFile, match="does not hold the moments"):
        load_moments(tmp_path)
