"""An LCM-LoRA added to a painter: as diffusers does it, by hand, and files that are none."""

import diffusers
import pytest
import torch
from diffusers import LCMScheduler, StableDiffusionPipeline
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from safetensors.torch import load_file, save_file
from torch import Tensor

from painter_standins import pipeline, scheduler
from visiondx.core.errors import InputError
from visiondx.models.painter import Painter

SEEDS = [3, 8]
PROMPTS = ["a dog", "the cat"]
LAYERS = ["to_q", "to_k", "to_v", "to_out.0", "proj_in", "conv1", "conv_in", "linear_1"]
FILE = "pytorch_lora_weights.safetensors"
QUERY = "down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_q"  # 16 x 16
CONV = "up_blocks.1.resnets.0.conv1"  # 3 x 3


def drawn_lora(folder, target, rank: int = 2, alpha: float = 2, seed: int = 1) -> dict[str, Tensor]:
    """A random LoRA of a UNet, by name of peft."""
    unet = pipeline(folder).unet
    unet.add_adapter(LoraConfig(r=rank, lora_alpha=alpha, target_modules=target))
    drawn = torch.Generator().manual_seed(seed)
    state = get_peft_model_state_dict(unet)
    return {name: torch.randn(v.shape, generator=drawn) * 0.3 for name, v in state.items()}


def kohya(state: dict[str, Tensor], alpha: float) -> dict[str, Tensor]:
    """The same in kohya's names, with alpha in the file."""
    named = {}
    for name, value in state.items():
        layer, _, kind = name.removesuffix(".weight").rpartition(".lora_")
        start = "lora_unet_" + layer.replace(".", "_")
        named[f"{start}.lora_{'down' if kind == 'A' else 'up'}.weight"] = value
        named[f"{start}.alpha"] = torch.tensor(alpha)
    return named


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """(folder of a painter, folder of an LCM-LoRA by diffusers, its tensors by name of peft)."""
    folder = tmp_path_factory.mktemp("painter")
    pipe = pipeline(folder)
    pipe.scheduler = scheduler(diffusers.PNDMScheduler, skip_prk_steps=True)  # as SD 1.x has it
    pipe.save_pretrained(folder)
    state = drawn_lora(folder, LAYERS)
    StableDiffusionPipeline.save_lora_weights(folder / "lora", unet_lora_layers=state)
    return folder, folder / "lora", state


def theirs(folder, file) -> Tensor:
    pipe = StableDiffusionPipeline.from_pretrained(folder, safety_checker=None)
    pipe.set_progress_bar_config(disable=True)
    pipe.load_lora_weights(file.parent, weight_name=file.name)
    pipe.fuse_lora()
    pipe.scheduler = LCMScheduler.from_config(pipe.scheduler.config)
    sources = [torch.Generator().manual_seed(seed) for seed in SEEDS]
    settings = {"num_inference_steps": 4, "guidance_scale": 1.0, "output_type": "pt"}
    return pipe(PROMPTS, generator=sources, **settings).images


def ours(painter: Painter) -> Tensor:
    """Prompt k with seed k."""
    made = painter.generate(PROMPTS, SEEDS)
    return torch.stack([made[0, 0], made[1, 1]])


def test_pictures_equal_the_pipelines(files) -> None:
    folder, lora, _ = files
    painter = Painter.load(folder, lora=lora)
    assert (painter.steps, painter.guidance) == (4, 1.0)
    assert type(painter.scheduler) is LCMScheduler
    assert painter.scheduler.config.beta_start == 0.00085
    made = ours(painter)
    torch.testing.assert_close(made, theirs(folder, lora / FILE), atol=2e-5, rtol=0)
    plain = Painter.load(folder)
    assert (plain.steps, plain.guidance) == (25, 7.5)
    bare = Painter(plain.vae, plain.unet, plain.text_encoder, plain.tokenizer, painter.scheduler)
    assert (ours(bare) - made).abs().max() > 0.01  # it changes what is painted
    # and what is left is an ordinary UNet
    assert plain.unet.state_dict().keys() == painter.unet.state_dict().keys()
    assert {type(m) for m in painter.unet.modules()} == {type(m) for m in plain.unet.modules()}
    assert not any(p.requires_grad for p in painter.parameters())
    assert not painter.unet.training


def test_each_weight_is_changed_by_alpha_over_r_times_b_a(files, tmp_path) -> None:
    folder, _, state = files
    save_file(kohya(state, alpha=5.0), tmp_path / "any name.safetensors")
    before = Painter.load(folder).unet
    after = Painter.load(folder, lora=tmp_path / "any name.safetensors").unet
    for name, axes in ((QUERY, "or,ri->oi"), (CONV, "orxy,rihw->oihw")):
        a, b = state[f"{name}.lora_A.weight"], state[f"{name}.lora_B.weight"]
        change = 5.0 / 2 * torch.einsum(axes, b, a)
        was, now = before.get_submodule(name).weight, after.get_submodule(name).weight
        torch.testing.assert_close(now, was + change)
        assert change.abs().max() > 0.1
    untouched = "down_blocks.0.resnets.0.conv2"
    assert torch.equal(*(u.get_submodule(untouched).weight for u in (before, after)))
    torch.testing.assert_close(
        ours(Painter.load(folder, lora=tmp_path)),
        theirs(folder, tmp_path / "any name.safetensors"),
        atol=2e-5,
        rtol=0,
    )


def test_old_names_of_diffusers_and_an_alpha_in_the_files_header(files, tmp_path) -> None:
    folder, _, _ = files
    state = drawn_lora(folder, ["to_q", "to_v"], rank=4)
    old = {
        "unet."
        + name.replace(".to_", ".processor.to_")
        .replace(".lora_A", "_lora.down")
        .replace(".lora_B", "_lora.up"): value
        for name, value in state.items()
    }
    save_file(old, tmp_path / "old.safetensors")
    StableDiffusionPipeline.save_lora_weights(
        tmp_path / "told",
        unet_lora_layers=state,
        unet_lora_adapter_metadata=LoraConfig(
            r=4, lora_alpha=12, target_modules=["to_q", "to_v"]
        ).to_dict(),
    )
    weight = {
        name: Painter.load(folder, lora=path).unet.get_submodule(QUERY).weight
        for name, path in (("old", tmp_path / "old.safetensors"), ("told", tmp_path / "told"))
    }
    was = Painter.load(folder).unet.get_submodule(QUERY).weight
    change = state[f"{QUERY}.lora_B.weight"] @ state[f"{QUERY}.lora_A.weight"]
    torch.testing.assert_close(weight["old"] - was, change)  # alpha is r where nothing is said
    torch.testing.assert_close(weight["told"] - was, 3 * change)
    shown = ours(Painter.load(folder, lora=tmp_path / "told"))
    torch.testing.assert_close(shown, theirs(folder, tmp_path / "told" / FILE), atol=2e-5, rtol=0)


def test_the_gradient_from_soft_tokens_through_the_changed_unet(files) -> None:
    folder, lora, _ = files
    painter = Painter.load(folder, lora=lora).double()
    ids, rows = painter.tokens(PROMPTS[:1]), [1, 2]
    soft = painter.token_embeddings(ids)[:, rows].requires_grad_()
    noise = painter.noise(SEEDS[:1])

    def value(soft: Tensor) -> Tensor:
        return painter(painter.encode(ids, soft, rows), noise).square().sum()

    (gradient,) = torch.autograd.grad(value(soft), soft)
    way = torch.randn(soft.shape, dtype=torch.double) * 1e-5
    with torch.no_grad():
        change = (value(soft + way) - value(soft - way)).item() / 2
    assert gradient.abs().max() > 1e-4
    assert (gradient * way).sum().item() == pytest.approx(change, rel=1e-4)


def test_files_that_are_no_lora_of_this_painter(files, tmp_path, monkeypatch) -> None:
    folder, _, state = files
    prefixed = {f"unet.{name}": value for name, value in state.items()}

    def refused(given, name="x.safetensors") -> str:
        path = tmp_path / name
        if isinstance(given, dict):
            save_file(given, path)
        else:
            path.write_bytes(given)
        with pytest.raises(InputError) as error:
            Painter.load(folder, lora=path)
        return str(error.value)

    a = f"unet.{QUERY}.lora_A.weight"
    wrong = refused({**prefixed, a: torch.zeros(2, 24)})
    assert f"another model: {QUERY}.lora_A.weight is 2 x 24, and" in wrong
    assert "would need 2 x 16" in wrong
    b = f"unet.{CONV}.lora_B.weight"
    wrong = refused({**prefixed, b: torch.zeros(12, 2, 1, 1)})
    assert f"{CONV}.lora_B.weight is 12 x 2 x 1 x 1, and" in wrong
    assert "would need 8 x 2 x 1 x 1" in wrong
    beyond = {name.replace("down_blocks.1", "down_blocks.3"): v for name, v in prefixed.items()}
    assert "it has down_blocks.3." in refused(beyond)
    deep = {
        name.replace("unet_down_blocks_1", "unet_down_blocks_7"): v
        for name, v in kohya(state, 1.0).items()
    }
    assert "for which this UNet has no layer" in refused(deep)
    halved = dict(prefixed)
    del halved[a]
    assert f"{QUERY} has not two matrices of one rank" in refused(halved)
    assert "not two matrices of one rank" in refused({**prefixed, a: torch.zeros(3, 16)})
    text = {"text_encoder.encoder.layers.0.self_attn.q_proj.lora_A.weight": torch.zeros(2, 16)}
    assert "changes the text encoder too (1 tensors)" in refused({**prefixed, **text})
    other = {f"transformer.{name}": value for name, value in state.items()}
    assert "is no LoRA of a UNet" in refused(other)
    assert "holds no LoRA, but weight:" in refused({"weight": torch.zeros(2)})
    assert "is damaged" in refused({**prefixed, a: torch.full((2, 16), float("nan"))})
    assert "is damaged" in refused(b"half a file")
    dora = {"lora_unet_conv_in.dora_scale": torch.ones(8)}
    assert "is a DoRA" in refused({**kohya(state, 1.0), **dora})
    assert "x.bin is a pickle" in refused(b"", "x.bin")

    # said before the painter is read
    monkeypatch.setattr("visiondx.models.painter.read_painter", None)
    for path, words in (
        (tmp_path / "nothing.safetensors", "There is no file"),
        (tmp_path / "empty", "holds no LCM-LoRA: pytorch_lora_weights.safetensors belongs"),
        (tmp_path / "pickled", "pytorch_lora_weights.bin is a pickle"),
        (tmp_path / "several", "holds one.safetensors, two.safetensors: give the path of one"),
    ):
        if not path.suffix:
            path.mkdir()
        if path.name == "pickled":
            (path / "pytorch_lora_weights.bin").write_bytes(b"")
        if path.name == "several":
            for name in ("one", "two"):
                save_file(prefixed, path / f"{name}.safetensors")
        with pytest.raises(InputError, match=words):
            Painter.load(folder, lora=path)
    assert load_file(files[1] / FILE).keys() == prefixed.keys()
