"""``visiondx convert``, and the generator's file as a parameter of a run."""

import json
import subprocess
import sys

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from official_files import write_ada, write_rosinality
from visiondx.core.errors import InputError
from visiondx.core.files import sha256
from visiondx.models import stylegan2_files
from visiondx.models.generator import StyleGenerator
from visiondx.run import cli
from visiondx.run.checks import check_generator, check_parameters


@pytest.fixture
def model(tmp_path):
    return write_ada(tmp_path / "model.pkl", c_dim=3, conv_clamp=2.0)


def test_what_is_converted_is_the_same_generator(model, capsys):
    assert cli.main(["convert", str(model), "--class", "1"]) == 0
    out = model.with_suffix(".safetensors")
    told = capsys.readouterr().out
    assert told.startswith("model.pkl: StyleGAN2, configuration F (stylegan2-ada-pytorch), 16 px")
    assert "class 1 of 3" in told
    assert told.count("\n") == 1
    pickled, plain = StyleGenerator.open(model, 1), StyleGenerator.open(out)
    assert plain.fingerprint == pickled.fingerprint
    assert plain.card == pickled.card
    s = pickled.sample_styles(3, 0, 0.5, cutoff=2)
    assert torch.equal(plain.sample_styles(3, 0, 0.5, cutoff=2), s)
    assert torch.equal(plain.synthesize(s), pickled.synthesize(s))
    with safe_open(out, "pt") as stored:
        card = json.loads(stored.metadata()["visiondx"])["card"]
    expected = {"source": "model.pkl", "sha256": sha256(model), "class": 1, "resolution": 16}
    assert expected.items() <= card.items()
    assert StyleGenerator.open(out, 1).card["class"] == 1
    with pytest.raises(InputError, match="converted for class 1, not for class 2"):
        StyleGenerator.open(out, 2)


def test_the_mean_w_and_statistics_are_kept(tmp_path):
    write_rosinality(tmp_path / "model.pt", mean=False)
    assert (
        cli.main(["convert", str(tmp_path / "model.pt"), "--out", f"{tmp_path}/x.safetensors"]) == 0
    )
    ours = StyleGenerator.open(tmp_path / "x.safetensors")
    other = StyleGenerator.open(tmp_path / "model.pt")
    assert torch.equal(ours.network.mapping.w_avg, other.network.mapping.w_avg)
    assert torch.equal(ours.style_std, other.style_std)
    assert ours.style_std.min() > 0


def test_an_existing_file_is_not_overwritten(model, capsys):
    out = model.with_suffix(".safetensors")
    out.write_text("mine")
    assert cli.main(["convert", str(model), "--class", "1"]) == 2
    assert "overwrite it with --force" in capsys.readouterr().err
    assert out.read_text() == "mine"
    assert cli.main(["convert", str(model), "--class", "1", "--force"]) == 0
    assert StyleGenerator.open(out).card["class"] == 1


def test_a_failed_conversion_leaves_what_was_there(model, monkeypatch):
    out = model.with_suffix(".safetensors")
    out.write_text("mine")

    def half(tensors, path, metadata):
        path.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr("safetensors.torch.save_file", half)
    assert cli.main(["convert", str(model), "--class", "1", "--force"]) == 130
    assert out.read_text() == "mine"
    assert sorted(p.name for p in out.parent.iterdir()) == ["model.pkl", "model.safetensors"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["model.pkl"], "draws 3 classes: choose one from 0 to 2"),
        (["model.pkl", "--class", "3"], "has no class 3: choose one from 0 to 2"),
        (["nowhere.pkl"], "There is no file nowhere.pkl"),
        (["model.pkl", "--class", "1", "--out", "x.pt"], "must end in .safetensors"),
    ],
)
def test_bad_input_is_refused_in_one_line(model, arguments, said, capsys, monkeypatch):
    monkeypatch.chdir(model.parent)
    assert cli.main(["convert", *arguments]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert [p.name for p in model.parent.iterdir()] == ["model.pkl"]


def test_a_converted_file_that_is_damaged(model):
    cli.main(["convert", str(model), "--class", "1"])
    out = model.with_suffix(".safetensors")
    whole = out.read_bytes()
    for n in (9, 500, len(whole) - 4):
        out.write_bytes(whole[:n])
        with pytest.raises(InputError, match="convert it again"):
            StyleGenerator.open(out)
    out.write_bytes(whole)
    with safe_open(out, "pt") as stored:
        header = stored.metadata()
        tensors = {name: stored.get_tensor(name) for name in stored.keys()}
    del tensors["network.synthesis.b8.conv0.weight"]
    save_file(tensors, out, header)
    with pytest.raises(InputError, match="convert it again"):
        StyleGenerator.open(out)
    save_file(tensors, out)
    with pytest.raises(InputError, match="was not written by 'visiondx convert'"):
        StyleGenerator.open(out)


def test_load_takes_a_name_or_a_path(tmp_path, monkeypatch):
    write_ada(tmp_path / "model.pkl")
    (tmp_path / "weights").write_bytes((tmp_path / "model.pkl").read_bytes())
    monkeypatch.chdir(tmp_path)
    one = StyleGenerator.load("model.pkl").fingerprint
    assert StyleGenerator.load("./weights").fingerprint == one
    for name in ("nowhere.PKL", "x/faces"):
        with pytest.raises(InputError, match="No file at"):
            StyleGenerator.load(name)


def test_a_path_is_checked_without_torch(tmp_path, monkeypatch):
    write_ada(tmp_path / "model.pkl")
    monkeypatch.chdir(tmp_path)
    assert check_generator("model.pkl") == str(tmp_path / "model.pkl")
    assert check_generator("faces") == "faces"
    check_parameters({"generator": str(tmp_path / "model.pkl"), "target": "young"})
    for wrong in ("other.pkl", "a/model", str(tmp_path)):
        with pytest.raises(InputError, match=f"Generator '{wrong}': there is no file "):
            check_parameters({"generator": wrong})
    code = "from visiondx.run import cli, checks; import sys; checks.check_generator('model.pkl');"
    done = subprocess.run(
        [sys.executable, "-c", code + "assert 'torch' not in sys.modules"],
        capture_output=True,
        text=True,
        env={"PYTHONPATH": ":".join(sys.path)},
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("command", ["diagnose", "run"])
def test_runs_are_given_the_absolute_path(command, tmp_path, monkeypatch):
    write_ada(tmp_path / "model.pkl")
    monkeypatch.chdir(tmp_path)
    given = {}
    monkeypatch.setattr(cli, "_run_and_tell", lambda *a: given.update(a[2]))
    if command == "run":
        arguments = ["run", "diagnose", "-p", "generator", "model.pkl"]
    else:
        arguments = ["diagnose", "--target", "young", "--attributes", "a hat"]
        arguments += ["--generator", "model.pkl"]
    assert cli.main(arguments) == 0
    assert given["generator"] == str(tmp_path / "model.pkl")
    gone = [each.replace("model.pkl", "gone.pkl") for each in arguments]
    assert cli.main(gone) == 2


def test_what_is_not_a_pickle_is_never_unpickled(tmp_path, monkeypatch):
    """A safetensors file is known by its content, whatever it is called."""
    cli.main(["convert", str(write_ada(tmp_path / "model.pkl"))])
    (tmp_path / "model.safetensors").rename(tmp_path / "renamed.pkl")
    monkeypatch.setattr(stylegan2_files, "read_pickle", lambda _: pytest.fail("unpickled"))
    assert StyleGenerator.open(tmp_path / "renamed.pkl").resolution == 16


def test_the_words_of_a_generators_file_are_looked_for_before_a_kernel_starts(tmp_path):
    (tmp_path / "model.pkl").touch()
    own = {"generator": str(tmp_path / "model.pkl"), "neutral": None}
    check_parameters(own | {"words": "human_faces"})
    check_parameters(own | {"words": "", "neutral": "a face"})
    check_parameters({"generator": "faces", "neutral": None, "words": ""})  # the world has them
    with pytest.raises(InputError, match=r"No list of words 'humans': choose from .*human_faces"):
        check_parameters(own | {"words": "humans"})
    with pytest.raises(InputError, match="have in common: give neutral, such as 'a face'"):
        check_parameters(own | {"words": ""})


def test_a_file_as_encoder_is_told_where_it_belongs(tmp_path):
    (tmp_path / "clip.pt").touch()
    with pytest.raises(InputError, match=r"clip.pt' is a file.*give the file as its weights"):
        check_parameters({"encoder": str(tmp_path / "clip.pt"), "encoder_weights": ""})
