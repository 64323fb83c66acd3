"""The embedded painter's files: what is written, what vouches for it, what is loaded of it."""

import pytest
import torch

from visiondx.core.errors import InputError
from visiondx.models import registry
from visiondx.models.painter import Painter
from visiondx_worlds.models import painter, zoo
from visiondx_worlds.models.painter import load_painter, load_part, save_part, save_words
from visiondx_worlds.models.tiny_encoder import load_encoder
from visiondx_worlds.training.painter_autoencoder import AutoencoderConfig, new_autoencoder
from visiondx_worlds.training.painter_quick import new_student
from visiondx_worlds.training.painter_unet import UNetConfig, new_scheduler, new_unet

ABOUT = {"notebook": "train/14_painter.ipynb", "seed": 3}


@pytest.fixture
def kept(tmp_path, monkeypatch):
    """(folder, parts) of a painter with random weights."""
    encoder = load_encoder()
    monkeypatch.setenv("VISIONDX_DATA", str(tmp_path))
    torch.manual_seed(0)
    vae = new_autoencoder(AutoencoderConfig(widths=(8, 8, 8), latent_channels=4)).eval()
    unet = new_unet(UNetConfig(widths=(8, 16), heads=2), 4, 128).eval()
    save_part("vae", vae, **ABOUT, quality={"psnr": 9})
    save_words(encoder, **ABOUT)
    save_part("unet", unet, scheduler=new_scheduler(), **ABOUT)
    student = new_student(unet)
    torch.nn.init.normal_(student.time_embedding.cond_proj.weight)
    save_part("quick", student, scheduler=new_scheduler(), **ABOUT)
    return tmp_path / "weights" / "painter", {"vae": vae, "unet": unet, "quick": student}


def test_a_part_is_written_as_fp16_and_vouched_for(kept) -> None:
    folder, parts = kept
    assert sorted(path.name for path in (folder / "vae").iterdir()) == [
        "config.json",
        "diffusion_pytorch_model.safetensors",
    ]
    entry = zoo.manifest()["painter-vae"]
    assert entry["file"] == "painter/vae/diffusion_pytorch_model.safetensors"
    assert (entry["seed"], entry["quality"]) == (3, {"psnr": 9})
    loaded = load_part("vae")
    assert loaded.dtype == torch.float32
    for key, value in parts["vae"].state_dict().items():
        assert torch.equal(loaded.state_dict()[key], value.half().float()), key
    with torch.no_grad():
        parts["vae"].decoder.conv_in.bias[0] = 1e6
    with pytest.raises(InputError, match="of the painter's vae does not fit fp16"):
        save_part("vae", parts["vae"], **ABOUT)


def test_the_folder_is_a_painter_and_the_kinds_differ(kept) -> None:
    folder, _ = kept
    assert {path.name for path in folder.iterdir()} == {
        *("vae", "unet", "text_encoder", "tokenizer", "scheduler", "quick")
    }
    teacher, four = load_painter("teacher"), load_painter()
    assert (teacher.steps, four.steps) == (25, 4)
    assert [teacher.guidance, four.guidance] == [painter.KINDS[k][2] for k in ("teacher", "quick")]
    assert (four.size, four.context_length) == (64, 48)
    official = Painter.load(folder)
    settings = {"steps": 3, "guidance": 2.0}
    made = teacher.generate(["a dog"], [4], **settings)
    assert torch.equal(official.generate(["a dog"], [4], **settings), made)
    quick = four.generate(["a dog"], [4])
    assert quick.shape == (1, 1, 3, 64, 64)
    # told its guidance
    assert not torch.allclose(quick, four.generate(["a dog"], [4], guidance=1.0))


def test_both_are_loaded_by_name(kept) -> None:
    assert registry.offered("painters") == ["embedded", "embedded-teacher"]
    teacher, four = Painter.load("embedded-teacher"), Painter.load("embedded")
    assert (teacher.steps, four.steps) == (25, 4)
    assert (teacher.distilled, four.distilled) == (False, True)
    assert registry.ask("painter_size", "embedded-teacher") == 64


def test_altered_weights_and_other_kinds_are_refused(kept) -> None:
    folder, _ = kept
    path = folder / "quick" / "unet" / "diffusion_pytorch_model.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(InputError, match="altered"):
        load_painter()
    load_painter("teacher")
    with pytest.raises(InputError, match=r"'turbo'.*quick"):
        load_painter("turbo")
