"""A CUDA GPU gives what the CPU gives, on CLIP ViT-B/16 at full size with random weights: `pytest -m gpu`.

Steps: what is recorded as a CUDA graph, compiled or computed in bf16 is compared with what it replaces.

Shapes: T adapters, N images, K experts, P parameters.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from in_memory import train_joint, train_tasks
from recalls import recalls
from small_clip import small_clip

from sglora_cli.build import training
from sglora_cli.build.recorded_step import Recorded
from sglora_cli.build.task_stack import TaskStack
from sglora_cli.build.training import JointTraining, OwnTraining
from sglora_cli.config import RuntimeConfig, TrainConfig
from sglora_cli.lora.algebra import update_error
from sglora_cli.lora.layout import Layout, Site
from sglora_cli.lora.prior import moments
from sglora_cli.plugin.testing.toys import ToyExperts, material
from sglora_cli.plugin.values import TaskTensors
from sglora_cli.testing import BACKBONE_CHECKS, adapters, images, layout_of, run_check

pytestmark = [pytest.mark.gpu, pytest.mark.slow]
NAMES = ("pug", "horse", "sunflower")
PHOTOS, EPOCHS = 12, 20


@pytest.fixture
def device() -> torch.device:
    if not torch.cuda.is_available():
        pytest.skip("torch sees no CUDA GPU; on a machine that has one, run `pytest -m gpu`")
    return torch.device("cuda")


def full_size_clip(device: torch.device | str, **runtime):
    import open_clip

    from sglora_openclip.model import OpenClipModel

    torch.manual_seed(0)
    architecture = "ViT-B-16-quickgelu"
    clip = open_clip.create_model(architecture, load_weights=False, pretrained_text=False)
    return OpenClipModel(clip, architecture, RuntimeConfig(device=str(device), **runtime))


@pytest.fixture
def tasks_for():
    """Three tasks of noise pictures, each with a caption of its own, as a model sees them."""

    def tasks(model) -> list[TaskTensors]:
        stem_N = model.stem(images(PHOTOS)).half()
        captions = {name: [f"a photo of a {name} number {n}" for n in range(PHOTOS)] for name in NAMES}
        return [
            TaskTensors(name, stem_N, model.encode_text(texts), tuple(range(PHOTOS)))
            for name, texts in captions.items()
        ]

    return tasks


def test_features_of_adapters_are_those_of_the_cpu(device):
    on_gpu, on_cpu = (full_size_clip(place, precision="fp32") for place in (device, "cpu"))
    layout, stem_N = layout_of(on_cpu), on_cpu.stem(images(2))
    flat_TP = adapters(layout, 2)
    with torch.no_grad():
        gap = on_gpu.encode_image(stem_N, layout, flat_TP).cpu() - on_cpu.encode_image(stem_N, layout, flat_TP)
    assert float(gap.abs().max()) < 1e-4


def test_texts_of_any_length_are_those_of_the_cpu(device):
    on_gpu, on_cpu = (full_size_clip(place, precision="fp32") for place in (device, "cpu"))
    texts = ["a photo of a pug", "a", "two dogs and " * 40, "a man riding a wave on top of a surfboard"]
    assert on_gpu.text_shape == on_cpu.text_shape is not None
    assert float((on_gpu.encode_text(texts) - on_cpu.encode_text(texts)).abs().max()) < 1e-4


def test_a_backbone_on_the_gpu_passes_every_conformance_check(device):
    model = full_size_clip(device, precision="fp32")
    assert {check.__name__: wrong for check in BACKBONE_CHECKS if (wrong := run_check(check, model))} == {}


@pytest.mark.parametrize("projection", [0, 4])
def test_a_cvae_fitted_on_the_gpu_gives_the_adapter_of_one_fitted_on_the_cpu(projection, device):
    """From the same start with the same noise: the same adapter but for rounding."""
    from sglora_cvae import CvaeConfig
    from sglora_cvae.training import fit

    toys = material(ToyExperts())
    config = CvaeConfig(hidden=32, latent=4, epochs=30, projection=projection)
    on_gpu, on_cpu = (
        fit(replace(toys, device=str(place)), config)[0].generate(toys.priors[0], 1, 0, 1.0)
        for place in (device, "cpu")
    )
    assert float((on_gpu - on_cpu).norm() / (on_cpu - toys.priors[0].mean_P).norm()) < 0.02


@pytest.mark.parametrize(
    ("name", "most"),
    [("dare-linear", 1e-6), ("dare-linear:space=factors", 1e-6), ("ties", 1e-3), ("dare-ties", 1e-3), ("knots", 1e-3)],
)
def test_a_merge_on_the_gpu_is_that_of_the_cpu(name, most, device):
    """What is dropped is the same. A number on the border of a trim, or a sum near zero, may round to either side."""
    from sglora_merge import sglora_generators

    class Experts:
        layout = Layout((Site("q", 768, 768), Site("k", 768, 768), Site("head", 512, 768)), 2, 2.0)
        names = tuple("abcd")

        def means(self, rows=None):
            return torch.randn(4, self.layout.size, generator=torch.Generator().manual_seed(0))

    base, _, settings = name.partition(":")
    rule = next(one for one in sglora_generators() if one.name == base)
    fitted = (rule.member(settings) if settings else rule).restore(Experts(), {})
    on_gpu, on_cpu = (fitted.on_device(place).generate(None, 2, 1, 1.0) for place in (device, torch.device("cpu")))
    assert on_gpu.device.type == "cpu"
    for one_P, other_P in zip(on_gpu, on_cpu, strict=True):
        assert update_error(Experts.layout, one_P, other_P) < most


WAYS = [{"precision": "bf16"}, {"precision": "fp16"}, {"checkpointing": True}]


def loss(model, layout: Layout, task: TaskTensors, adapter_1P: torch.Tensor | None) -> float:
    """Cross-entropy of a task's images against its captions, without an adapter or with one."""
    with torch.no_grad():
        if adapter_1P is None:
            image_ND = model.encode_image(task.stem_N)
        else:
            image_ND = model.encode_image(task.stem_N, layout, adapter_1P)[0]
    logits_NN = model.scale * image_ND.float().cpu() @ task.text_CD.float().T
    return float(F.cross_entropy(logits_NN, torch.arange(len(logits_NN))))


@pytest.mark.parametrize("runtime", WAYS, ids=lambda runtime: "-".join(map(str, runtime.values())))
def test_training_lowers_the_loss_of_every_task_and_the_experts_mix(runtime, device, tasks_for):
    """Experts trained, then mixed for a sentence, then measured: the way of `pack build`, `generate` and `bench`."""
    model = full_size_clip(device, **runtime)
    layout, tasks = Layout(model.sites, 2, 2.0), tasks_for(model)
    config = TrainConfig(epochs=EPOCHS, states=2, batch=PHOTOS, learning_rate=1e-3)
    states = dict(zip(NAMES, (s for _, s in train_tasks(model, layout, tasks, config)), strict=True))
    for task in tasks:
        assert loss(model, layout, task, states[task.name][-1:]) < loss(model, layout, task, None)

    mean_KP = torch.stack([states_MP.mean(dim=0) for states_MP in states.values()])
    alpha_K = torch.softmax(model.encode_text(NAMES) @ model.encode_text(["a photo of a dog"])[0] / 0.05, dim=0)
    mixed_P, _, _ = moments(alpha_K, mean_KP, torch.zeros_like(mean_KP))
    with torch.no_grad():
        image_ND = model.encode_image(tasks[0].stem_N, layout, mixed_P[None])[0].cpu()
    measured = recalls(image_ND, tasks[0].text_CD, tasks[0].image_of)
    assert all(0 <= value <= 100 for value in measured.values())


def test_one_adapter_is_trained_on_all_tasks(device, tasks_for):
    model = full_size_clip(device)
    layout, tasks = Layout(model.sites, 2, 2.0), tasks_for(model)
    config = TrainConfig(epochs=EPOCHS, joint_epochs=EPOCHS, batch=PHOTOS, learning_rate=1e-3)
    joint_P = train_joint(model, layout, tasks, config)
    together, without = (sum(loss(model, layout, task, a) for task in tasks) for a in (joint_P[None], None))
    assert together < without


def gradient(model, task: TaskTensors, flat_TP: torch.Tensor) -> torch.Tensor:
    """Of a contrastive loss of a task's photos, with respect to the adapters: (T, P) on the CPU."""
    flat_TP = flat_TP.clone().requires_grad_()
    image_TND = model.encode_image(task.stem_N, layout_of(model), flat_TP).cpu()
    logits_TNN = 20 * image_TND @ task.text_CD.T
    right_N = torch.arange(logits_TNN.shape[1]).repeat(len(flat_TP))
    loss = F.cross_entropy(logits_TNN.flatten(0, 1), right_N) * model.loss_scale
    return torch.autograd.grad(loss, flat_TP)[0] / model.loss_scale


@pytest.mark.parametrize(("precision", "far"), [("bf16", 0.05), ("fp16", 0.02)])
def test_low_precision_is_as_near_to_the_cpus_float32_as_the_card_says(precision, far, device, tasks_for):
    low, full = full_size_clip(device, precision=precision), full_size_clip("cpu")
    task, flat_TP = tasks_for(full)[0], adapters(layout_of(full), 1)
    with torch.no_grad():
        ours, theirs = (m.encode_image(task.stem_N, layout_of(full), flat_TP)[0].cpu() for m in (low, full))
    assert float((ours - theirs).norm(dim=1).mean()) < 0.01
    wanted_TP = gradient(full, task, flat_TP)
    assert float((gradient(low, task, flat_TP) - wanted_TP).norm() / wanted_TP.norm()) < far


def test_in_bf16_only_copies_of_the_blocks_are_on_the_gpu(device):
    low, full = full_size_clip(device, precision="bf16"), full_size_clip("cpu")
    assert {(w.device.type, w.dtype) for block in low.tower.blocks for w in block.parameters()} == {
        ("cuda", torch.bfloat16)
    }
    assert {w.device.type for w in low.clip.visual.transformer.parameters()} == {"cpu"}
    assert low.fingerprint == full.fingerprint


RECORDED = [{"precision": "fp32"}, {"precision": "bf16"}, {"precision": "bf16", "checkpointing": True}]


@pytest.mark.parametrize("runtime", RECORDED, ids=lambda runtime: "-".join(map(str, runtime.values())))
@pytest.mark.parametrize("kind", [OwnTraining, JointTraining])
def test_recorded_steps_train_as_steps_launched_one_by_one(kind, runtime, device, tasks_for, monkeypatch):
    model = full_size_clip(device, **runtime)
    layout, tasks = layout_of(model), tasks_for(model)
    tasks[0] = replace(tasks[0], stem_N=tasks[0].stem_N[:5], text_CD=tasks[0].text_CD[:5], image_of=tuple(range(5)))
    config = TrainConfig(batch=4, learning_rate=1e-3, tasks_at_once=3)
    ends = []
    for limit in (0, 128):
        monkeypatch.setattr(training, "SMALL", limit)
        last = layout.initial(0) if kind is OwnTraining else 9
        learning = kind(model, layout, tasks, config, last)
        losses = [learning.advance() for _ in range(4)]
        ends.append((torch.tensor(losses), learning.adam.x.detach().cpu()))
    assert isinstance(learning.run, Recorded)
    assert learning.run._recorded
    assert not learning.run._refused
    (plain_losses, plain), (losses, recorded) = ends
    assert torch.allclose(losses, plain_losses, atol=0.02)
    assert float((recorded - plain).norm() / (plain - layout.initial(0)).norm()) < 0.05


def test_losses_of_recorded_steps_are_those_of_the_cpu(device, tasks_for):
    losses = []
    for place in (device, "cpu"):
        model = full_size_clip(place, precision="fp32")
        config = TrainConfig(batch=PHOTOS, learning_rate=1e-4)
        learning = OwnTraining(model, layout_of(model), tasks_for(model)[:1], config, layout_of(model).initial(0))
        losses.append([learning.advance() for _ in range(6)])
    assert torch.allclose(*map(torch.tensor, losses), atol=1e-3)


@pytest.mark.parametrize("kind", [OwnTraining, JointTraining])
def test_no_step_waits_for_the_gpu(kind, device, tasks_for, monkeypatch):
    monkeypatch.setattr(training, "SMALL", 0)
    model = full_size_clip(device)
    tasks, layout = tasks_for(model), layout_of(model)
    learning = kind(model, layout, tasks, TrainConfig(batch=4), layout.initial(0) if kind is OwnTraining else 9)
    assert learning.stack.resident
    learning.advance()
    pairs = [(n, source.epoch()[0]) for n, source in enumerate(learning.sources)]
    (shown,) = learning.stack.tables([pairs])
    torch.cuda.set_sync_debug_mode("error")
    try:
        learning._step(shown)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_photos_on_the_gpu_train_the_adapter_of_photos_that_each_step_copies(device, tasks_for, monkeypatch):
    model = full_size_clip(device, precision="fp32")
    layout, tasks, joint = layout_of(model), tasks_for(model), []
    for resident in (True, False):
        monkeypatch.setattr(
            training, "TaskStack", lambda of, place, _, resident=resident: TaskStack(of, place, resident)
        )
        learning = JointTraining(model, layout, tasks, TrainConfig(batch=8, joint_learning_rate=1e-3), 4)
        for _ in range(4):
            learning.advance()
        joint.append(learning.mean_P)
    assert float((joint[0] - joint[1]).norm() / (joint[1] - layout.initial(0)).norm()) < 0.05


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.filterwarnings("ignore")  # of torch.compile
def test_blocks_compiled_as_one_graph_give_the_same_gradient(precision, device):
    compiled, plain = (small_clip(device=str(device), precision=precision, compile=on) for on in (True, False))
    task = TaskTensors("a", plain.stem(images(4)), torch.randn(4, 16), tuple(range(4)))
    flat_TP = adapters(layout_of(plain), 2)
    wanted_TP = gradient(plain, task, flat_TP)
    far = 1e-4 if precision == "fp32" else 0.05
    assert float((gradient(compiled, task, flat_TP) - wanted_TP).norm() / wanted_TP.norm()) < far
