"""The painter against diffusers' own pipelines, its gradients, and folders that are none."""

import copy
import json
import shutil

import diffusers
import pytest
import torch
from diffusers import DDIMScheduler, LCMScheduler
from safetensors.torch import load_file, save_file

from painter_standins import CONTEXT, pipeline, scheduler
from visiondx.core.errors import InputError
from visiondx.models.denoising import Noise
from visiondx.models.painter import Painter

SEEDS = [3, 8]
PROMPTS = ["a dog", "the cat"]


@pytest.fixture(scope="module")
def official(tmp_path_factory):
    """(folder, pipeline loaded from it)."""
    folder = tmp_path_factory.mktemp("painter")
    pipeline(folder).save_pretrained(folder)
    pipe = diffusers.StableDiffusionPipeline.from_pretrained(folder, safety_checker=None)
    pipe.set_progress_bar_config(disable=True)
    return folder, pipe


@pytest.fixture(scope="module")
def painter(official) -> Painter:
    return Painter.load(official[0])


def with_scheduler(painter: Painter, chosen: object) -> Painter:
    return Painter(painter.vae, painter.unet, painter.text_encoder, painter.tokenizer, chosen)


def theirs(pipe, chosen: object, prompts: list[str], **settings: object) -> torch.Tensor:
    pipe.scheduler = chosen
    sources = [torch.Generator().manual_seed(seed) for seed in SEEDS]
    made = pipe(prompts, generator=sources, output_type="pt", **settings)
    return made.images.float()


@pytest.mark.parametrize(
    ("kind", "guidance", "settings"),
    [
        (DDIMScheduler, 5.0, {"prediction_type": "v_prediction"}),
        (diffusers.PNDMScheduler, 1.0, {"skip_prk_steps": True}),
        (diffusers.EulerDiscreteScheduler, 5.0, {}),
        (LCMScheduler, 1.0, {}),
    ],
)
def test_pictures_equal_the_pipelines(official, painter, kind, guidance, settings) -> None:
    chosen = scheduler(kind, **settings)
    ours = with_scheduler(painter, chosen)
    made = ours.generate(PROMPTS, SEEDS, steps=4, guidance=guidance, batch=3)
    assert made.shape == (2, 2, 3, 16, 16)
    assert 0 < made.std()
    told = theirs(official[1], chosen, PROMPTS, num_inference_steps=4, guidance_scale=guidance)
    diagonal = torch.stack([made[0, 0], made[1, 1]])  # prompt k with seed k
    torch.testing.assert_close(diagonal, told, atol=2e-5, rtol=0)
    assert (made[0, 0] - made[1, 0]).abs().max() > 1e-3  # words matter
    assert (made[0, 0] - made[0, 1]).abs().max() > 1e-3  # and noise does


def test_a_unet_that_is_told_its_guidance(tmp_path) -> None:
    pipe = pipeline(tmp_path, told=6)
    chosen = scheduler(LCMScheduler)
    ours = Painter(pipe.vae, pipe.unet, pipe.text_encoder, pipe.tokenizer, chosen)
    assert (ours.steps, ours.guidance) == (4, 1.0)
    made = ours.generate(PROMPTS[:1], SEEDS, guidance=3.0)[0]
    told = theirs(pipe, chosen, PROMPTS[:1] * 2, num_inference_steps=4, guidance_scale=3.0)
    torch.testing.assert_close(made, told, atol=2e-5, rtol=0)
    assert (made - ours.generate(PROMPTS[:1], SEEDS)[0]).abs().max() > 1e-4


def test_the_same_noise_is_the_same_picture_bit_for_bit(painter) -> None:
    lcm = with_scheduler(painter, scheduler(LCMScheduler))
    condition = lcm.encode(lcm.tokens(PROMPTS))
    noise = lcm.noise(SEEDS)
    assert noise.steps.shape == (3, 2, 4, 8, 8)
    before = torch.get_rng_state()
    first = lcm(condition, noise)
    assert torch.equal(torch.get_rng_state(), before)  # nothing is drawn meanwhile
    torch.manual_seed(99)
    assert torch.equal(lcm(condition, noise), first)
    steps = noise.steps.clone()
    steps[2] += 0.5  # the last noise that is added
    assert not torch.equal(lcm(condition, Noise(noise.start, steps)), first)
    part = noise[1:]
    assert len(part) == 1
    torch.testing.assert_close(lcm(condition[1:], part), first[1:], atol=1e-6, rtol=0)


def test_soft_tokens_stand_in_their_rows_alone(painter) -> None:
    ids = painter.tokens(PROMPTS)
    assert ids.shape == (2, CONTEXT)
    embeddings = painter.token_embeddings(ids)
    plain = painter.encode(ids)
    # the rows' own embeddings change nothing, bit for bit
    assert torch.equal(painter.encode(ids, embeddings[:, 1:3], [1, 2]), plain)
    other = painter.tokens(["b dog", "dog cat"])
    swapped = painter.encode(ids, painter.token_embeddings(other)[:, [2, 1]], [2, 1])
    mixed = ids.clone()
    mixed[:, 1:3] = other[:, 1:3]
    assert torch.equal(swapped, painter.encode(mixed))
    one = torch.randn(1, 16)
    shared = painter.encode(ids, one, [2])
    assert torch.equal(shared[:, :2], plain[:, :2])  # causal: what stands before is as it was
    assert not torch.equal(shared[:, 2], plain[:, 2])
    assert torch.equal(painter.encode(ids), plain)  # no hook is left behind


def test_soft_tokens_stand_in_places_of_each_prompts_own(painter) -> None:
    ids = painter.tokens([*PROMPTS, "dog"])
    soft = torch.randn(3, 16)
    mask = torch.zeros_like(ids, dtype=torch.bool)
    mask[0, 2] = mask[1, 1] = mask[1, 3] = True  # the last prompt has none
    found = painter.encode(ids, soft, mask)
    assert torch.equal(found[0], painter.encode(ids[:1], soft[:1], [2])[0])
    assert torch.equal(found[1], painter.encode(ids[1:2], soft[1:], [1, 3])[0])
    assert torch.equal(found[2], painter.encode(ids)[2])
    for bad in (soft[:2], soft[:, :8], soft[None]):
        with pytest.raises(InputError, match=r"with 3 places: give \(3, 16\)"):
            painter.encode(ids, bad, mask)
    with pytest.raises(InputError, match=r"a mask of shape \(2, 12\)"):
        painter.encode(ids[:2], soft, mask)


def test_the_gradient_from_soft_tokens_to_the_picture(painter) -> None:
    lcm = with_scheduler(painter, scheduler(LCMScheduler))
    double = Painter(
        *(part.double() for part in (lcm.vae, lcm.unet, lcm.text_encoder)),
        lcm.tokenizer,
        lcm.scheduler,
    )
    try:
        ids, rows = double.tokens(PROMPTS[:1]), [1, 2]
        soft = double.token_embeddings(ids)[:, rows].requires_grad_()
        noise = double.noise(SEEDS[:1])

        def value(soft: torch.Tensor, **settings: object) -> torch.Tensor:
            return double.denoise(double.encode(ids, soft, rows), noise, **settings).square().sum()

        (gradient,) = torch.autograd.grad(value(soft), soft)
        way = torch.randn(soft.shape, dtype=torch.double) * 1e-4
        with torch.no_grad():
            change = value(soft + way) - value(soft - way)
        assert (gradient * way).sum().item() == pytest.approx(change.item() / 2, rel=1e-4)
        (whole,) = torch.autograd.grad(value(soft, through=4), soft)
        assert torch.equal(whole, gradient)
        (last,) = torch.autograd.grad(value(soft, through=1), soft)
        assert 0 < (last - gradient).abs().max()
        assert value(soft, through=1).item() == value(soft).item()
        assert not value(soft, through=0).requires_grad
        picture = double(double.encode(ids, soft, rows), noise)
        assert torch.autograd.grad(picture.sum(), soft)[0].abs().max() > 0
    finally:  # the parts are shared with the other tests
        for part in (painter.vae, painter.unet, painter.text_encoder):
            part.float()


def test_checkpointing_keeps_no_activations_of_a_step(painter, monkeypatch) -> None:
    ids = painter.tokens(PROMPTS[:1])
    soft = painter.token_embeddings(ids)[:, :2].requires_grad_()

    def kept(steps: int, checkpointed: bool) -> tuple[int, torch.Tensor]:
        sizes = []
        with monkeypatch.context() as patch:
            if not checkpointed:
                patch.setattr(
                    "visiondx.models.denoising.checkpoint",
                    lambda f, *args, use_reentrant, preserve_rng_state: f(*args),
                )
            with torch.autograd.graph.saved_tensors_hooks(
                lambda t: sizes.append(t.numel()) or t, lambda t: t
            ):
                latents = painter.denoise(
                    painter.encode(ids, soft, [0, 1]), painter.noise([1]), steps=steps, guidance=1
                )
            total = sum(sizes)  # before the backward pass computes them again
            return total, torch.autograd.grad(latents.sum(), soft)[0]

    (four, gradient), (eight, _) = kept(4, True), kept(8, True)
    plain, reference = kept(4, False)
    torch.testing.assert_close(gradient, reference)
    latents = 4 * 8 * 8
    assert (eight - four) / 4 < 4 * latents  # a step adds its latents, not what the UNet computes
    assert plain - four > 4 * 100 * latents


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda p: p.generate(["a" * 30], [1]), "needs 32 tokens and the painter reads 12"),
        (lambda p: p.generate(["  "], [1]), "is empty"),
        (lambda p: p.generate("a dog", [1]), "non-empty list"),
        (lambda p: p.generate(["a dog"], 1), "give a list, a seed for each picture"),
        (lambda p: p.generate(["a dog"], [4, 4]), "name one twice"),
        (lambda p: p.generate(["a dog"], [-1]), "whole number"),
        (lambda p: p.noise([1], size=17), "17 pixels cannot be halved .* multiple of 2"),
        (lambda p: p.generate(["a dog"], [1], size=31), "31 pixels cannot be halved"),
        (lambda p: p.noise([1], steps=0), "steps is 0"),
        (lambda p: p.encode(p.tokens(["a"]), torch.zeros(3, 16), [1]), r"shape \(3, 16\)"),
        (lambda p: p.encode(p.tokens(["a"]), torch.zeros(2, 16), [1, 1]), r"places \[1, 1\]"),
        (lambda p: p.encode(p.tokens(["a"]), torch.zeros(1, 16), [12]), r"places \[12\]"),
        (lambda p: p(torch.zeros(2, 12, 16), p.noise([1])), "2 prompt embeddings"),
        (lambda p: p(torch.zeros(1, 12, 16), p.noise([1]), through=-1), "through is -1"),
    ],
)
def test_bad_input_is_refused(painter, call, words) -> None:
    with pytest.raises(InputError, match=words):
        call(painter)


def test_a_bar_shows_where_more_than_one_batch_is_painted(painter, capsys) -> None:
    painter.generate(PROMPTS, [1], steps=1, guidance=1)
    assert "painting" not in capsys.readouterr().err
    painter.generate(PROMPTS, [1], steps=1, guidance=1, batch=1)
    assert "painting" in capsys.readouterr().err


def test_noise_for_another_number_of_steps_and_nan(painter) -> None:
    lcm = with_scheduler(painter, scheduler(LCMScheduler))
    condition = lcm.encode(lcm.tokens(PROMPTS[:1]))
    with pytest.raises(InputError, match="for 3 steps between and 3 steps need 2"):
        lcm(condition, lcm.noise([1]), steps=3)
    noise = lcm.noise([1])
    noise.steps[1] = float("nan")
    with pytest.raises(FloatingPointError, match="at step 3 of 4"):
        lcm(condition, noise)


def test_folders_that_are_no_painter(official, tmp_path) -> None:
    def broken(change) -> str:
        folder = tmp_path / "broken"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(official[0], folder)
        change(folder)
        with pytest.raises(InputError) as error:
            Painter.load(folder)
        return str(error.value)

    def write(path, **values: object) -> None:
        path.write_text(json.dumps({**json.loads(path.read_text()), **values}))

    def altered(folder, given) -> None:
        (path,) = folder.glob("*.safetensors")
        left = {key: value for key, value in load_file(path).items() if key not in given}
        save_file(left | {k: v for k, v in given.items() if v is not None}, path, {"format": "pt"})

    def pickled(folder) -> None:
        path = folder / "unet" / "diffusion_pytorch_model.safetensors"
        path.rename(path.with_suffix(".bin"))

    with pytest.raises(InputError, match="There is no folder"):
        Painter.load(tmp_path / "nothing")
    assert "has no vae/config.json" in broken(lambda f: shutil.rmtree(f / "vae"))
    assert "diffusion_pytorch_model.bin, a pickle" in broken(pickled)
    assert "holds no weights" in broken(
        lambda f: (f / "vae" / "diffusion_pytorch_model.safetensors").unlink()
    )
    wrong = broken(lambda f: write(f / "unet" / "config.json", cross_attention_dim=24))
    assert "cross_attention_dim is 24 and the text_encoder's hidden_size is 16" in wrong
    wrong = broken(lambda f: write(f / "vae" / "config.json", latent_channels=8))
    assert "in_channels is 4 and the vae's latent_channels is 8" in wrong
    wrong = broken(lambda f: write(f / "unet" / "config.json", block_out_channels=[8, 24]))
    assert "is damaged" in wrong
    for part, lost in (
        ("vae", "decoder.conv_norm_out.weight"),
        ("unet", "conv_in.bias"),
        ("text_encoder", "final_layer_norm.bias"),
    ):
        wrong = broken(lambda f, part=part, lost=lost: altered(f / part, {lost: None}))
        assert f"{part} has no tensor {lost}" in wrong
        wrong = broken(lambda f, part=part, lost=lost: altered(f / part, {lost: torch.zeros(7, 7)}))
        assert f"{part} is damaged" in wrong
    wrong = broken(lambda f: (f / "unet" / "config.json").write_text("{"))
    assert "is damaged" in wrong
    wrong = broken(
        lambda f: (f / "vae" / "diffusion_pytorch_model.safetensors").write_bytes(b"half")
    )
    assert "vae cannot be read" in wrong
    wrong = broken(
        lambda f: write(f / "scheduler" / "scheduler_config.json", _class_name="DDPMScheduler")
    )
    assert "DDPMScheduler draws its own noise" in wrong
    wrong = broken(
        lambda f: write(f / "text_encoder" / "config.json", architectures=["T5EncoderModel"])
    )
    assert "holds a T5EncoderModel" in wrong


def test_names_that_official_files_still_have(official, tmp_path, painter) -> None:
    """Stable Diffusion 1.5's: an older VAE's attention, and a text model within a text model."""
    folder = tmp_path / "old"
    shutil.copytree(official[0], folder)
    attention = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    for part in ("vae", "text_encoder"):
        (path,) = (folder / part).glob("*.safetensors")
        tensors = load_file(path)
        if part == "vae":
            for new, old in attention.items():
                tensors = {key.replace(f".{new}.", f".{old}."): v for key, v in tensors.items()}
            assert any(".query." in key for key in tensors)
        else:
            tensors = {f"text_model.{key}": value for key, value in tensors.items()}
            tensors["text_model.embeddings.position_ids"] = torch.arange(CONTEXT)[None]
        save_file(tensors, path, {"format": "pt"})
    shown, told = (p.generate(PROMPTS, SEEDS, steps=2) for p in (Painter.load(folder), painter))
    assert torch.equal(shown, told)


def test_a_tokenizer_of_another_painter(painter) -> None:
    parts = (painter.vae, painter.unet, painter.text_encoder)
    larger = copy.deepcopy(painter.tokenizer)
    larger.add_tokens([f"word{k}" for k in range(3)])
    words = len(painter.tokenizer)
    with pytest.raises(InputError, match=rf"has {words + 3} tokens .* knows {words}"):
        Painter(*parts, larger, painter.scheduler)


def test_a_folder_of_half_precision_files_alone(official, tmp_path, painter) -> None:
    official[1].scheduler = scheduler()
    official[1].save_pretrained(tmp_path, variant="fp16")
    shown = Painter.load(tmp_path).generate(PROMPTS[:1], [5], steps=2)
    told = with_scheduler(painter, scheduler()).generate(PROMPTS[:1], [5], steps=2)
    assert torch.equal(shown, told)
