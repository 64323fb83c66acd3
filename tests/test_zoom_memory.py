"""Batches that adapt to memory: stand-ins that run out of it above a number of images."""

import warnings

import pytest
import torch

from visiondx.core import memory as core_memory
from visiondx.core.errors import InputError
from visiondx.models.target import Target
from visiondx.search import batching as memory
from visiondx.search.batching import Batch, fitting, out_of_memory
from visiondx.zoom.directions import Directions
from visiondx.zoom.multi import multi_search
from visiondx.zoom.search import SearchSettings, search
from zoom_standins import NEUTRAL, GridClassifier, GridEncoder, GridGenerator, along, prompt, real

CPU = "[enforce fail at alloc_cpu.cpp:118] . DefaultCPUAllocator: can't allocate memory: 9 bytes."


def tiny(resolution=16):
    return real(resolution)[0]


class Small(GridGenerator):
    """Runs out of memory above ``limit`` images at once; ``fails`` counts how often."""

    def __init__(self, limit, error=None):
        super().__init__()
        self.limit, self.fails, self.error = limit, 0, error or RuntimeError(CPU)

    def synthesize(self, styles):
        if len(styles) > self.limit:
            self.fails += 1
            raise self.error
        return super().synthesize(styles)


def settings(**changed):
    plain = {"steps": 6, "eta": 3.0, "epsilon": 4.0, "alpha": 1.0, "beta": 0.3, "gamma": 0.1}
    return SearchSettings(**{**plain, "starts": (0.0, 1.0), **changed})


def run(how, generator, images=7, **changed):
    target, directions = Target(GridClassifier({0: 20.0, 3: -9.0})), along(generator, 0, 3, 11)
    styles = generator.sample_styles(images, 0)
    hold = (prompt(1), NEUTRAL)
    return how(generator, target, GridEncoder(), directions, styles, settings(**changed), hold)


BOTH = pytest.mark.parametrize("how", [search, multi_search])


@BOTH
@pytest.mark.parametrize(
    "error", [RuntimeError(CPU), MemoryError(), torch.OutOfMemoryError("CUDA")]
)
def test_halved_batches_give_the_same_result_with_one_warning(how, error):
    whole = run(how, GridGenerator())
    generator = Small(3, error)
    with pytest.warns(RuntimeWarning, match="Memory ran out with 64 images") as heard:
        found = run(how, generator)
    assert len([w for w in heard if w.category is RuntimeWarning]) == 1
    assert "going on with 3" in str(heard[0].message)  # 7 -> 3 images of the originals
    assert generator.fails == 1  # the rest is tried in parts of that size at once
    small = run(how, GridGenerator(), batch=3)
    assert torch.equal(found.trajectory_w, small.trajectory_w)
    assert torch.equal(found.trajectory_p, small.trajectory_p)
    assert torch.allclose(found.trajectory_w, whole.trajectory_w, atol=1e-5)
    assert torch.equal(found.p_original, small.p_original)
    assert found.settings == whole.settings


def test_a_search_goes_on_where_it_was():
    """The originals fit, the pairs do not: 42 of them, in parts of 21, 10 and then 5."""

    class Later(Small):
        def synthesize(self, styles):
            assert len(styles) in (7, 42, 21, 10, 5, 2)
            return super().synthesize(styles)

    generator = Later(9)
    with pytest.warns(RuntimeWarning, match="with 64 images at once; going on with 5"):
        found = run(search, generator)
    assert generator.fails == 3
    assert generator.synthesized == 7 + 7 * 3 * 2 * 7  # nothing that was finished is done again
    assert torch.allclose(found.w, run(search, GridGenerator()).w, atol=1e-5)


def test_the_part_that_ran_out_starts_again_and_the_bar_with_it():
    class Bar:
        n = 0

        def update(self, n):
            self.n += n

    bar, done = Bar(), []

    def work(first, last):
        bar.update(last - first)
        if last - first > 2:
            raise MemoryError
        done.append((first, last))
        return last - first

    batch = Batch(8)
    with pytest.warns(RuntimeWarning, match="with 8 images at once; going on with 2"):
        assert batch.split(9, work, bar) == [2, 2, 2, 2, 1]
    assert done == [(0, 2), (2, 4), (4, 6), (6, 8), (8, 9)]
    assert bar.n == 9
    assert batch.size == 2


@BOTH
def test_one_image_that_does_not_fit_is_a_clear_error(how):
    with pytest.raises(InputError, match=r"single image does not fit into memory \(.*can't alloc"):
        run(how, Small(0))


@BOTH
def test_another_error_is_not_taken_for_a_lack_of_memory(how):
    generator = Small(3, RuntimeError("shapes differ"))
    with pytest.raises(RuntimeError, match="shapes differ"):
        run(how, generator)
    assert generator.fails == 1


def test_no_warning_where_memory_suffices():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run(search, GridGenerator())


@pytest.mark.parametrize(
    ("error", "is_memory"),
    [
        (torch.OutOfMemoryError("CUDA out of memory."), True),
        (MemoryError(), True),
        (RuntimeError(CPU), True),
        (RuntimeError("DefaultCPUAllocator: not enough memory: you tried"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError("can't allocate memory"), False),
        (FloatingPointError("NaN"), False),
    ],
)
def test_what_counts_as_out_of_memory(error, is_memory):
    assert out_of_memory(error) == is_memory


def test_the_first_size(monkeypatch):
    styles, generator = torch.zeros(1, 16), GridGenerator()
    monkeypatch.setattr(memory, "free_memory", lambda device: 2**40)
    assert Batch.start(None, generator, styles).size == 64
    assert Batch.start(5, generator, styles).size == 5
    monkeypatch.setattr(memory, "free_memory", lambda device: 2**30)
    assert Batch.start(None, generator, styles).size == 32  # of 64 px, 16 MiB, in half of a GiB
    monkeypatch.setattr(memory, "free_memory", lambda device: None)
    assert Batch.start(None, generator, styles).size == 64
    assert fitting(8 * 2**30, 2**24) == 512
    assert fitting(0, 2**24) == 1
    with pytest.raises(InputError, match="batch must be 1 or more, got 0"):
        SearchSettings(batch=0)


def test_on_a_gpu_free_memory_decides(monkeypatch):
    class OnCuda:
        device, is_cuda = torch.device("cuda"), True

    monkeypatch.setattr(memory, "free_memory", lambda device: 4 * 2**30)
    generator = GridGenerator()
    assert Batch.start(None, generator, OnCuda()).size == 128  # of 64 px, in half of 4 GiB
    generator.resolution = 256
    assert Batch.start(None, generator, OnCuda()).size == 8
    assert Batch.start(100, generator, OnCuda()).size == 100
    monkeypatch.setattr(memory, "free_memory", lambda device: 2**50)
    assert Batch.start(None, generator, OnCuda()).size == 1024


def test_a_generator_of_layers_says_itself_what_an_image_takes(monkeypatch):
    generator = tiny()
    # what each layer reads: 4 px: 8 + 8 channels, 8 px: 8 + 4 + 4, 16 px: 4 + 2 + 2
    read = {4: 16 * 16, 8: 16 * 64, 16: 8 * 256}
    generator.checkpoint = False
    assert generator.image_bytes() == 4 * 3 * sum(read.values())
    assert generator.image_bytes(gradient=False) == 4 * 3 * (4 * 256)
    generator.checkpoint = True
    between = (8 + 3) * 16 + (4 + 3) * 64 + (2 + 3) * 256
    assert generator.image_bytes() == 4 * (between + 3 * read[16])
    assert generator.image_bytes(gradient=False) == 4 * 3 * (4 * 256)
    each = generator.image_bytes() + 1024 * 16**2  # and who looks at it
    monkeypatch.setattr(memory, "free_memory", lambda device: 20 * each)
    styles = generator.sample_styles(1, 0)
    assert Batch.start(None, generator, styles).size == 10
    assert Batch.start(None, generator, styles, gradient=False).size > 64 // 2


def test_checkpointing_is_chosen_by_free_memory(monkeypatch):
    generator = tiny()
    kept = generator.image_bytes()
    for free, chosen in ((8 * kept, False), (8 * kept - 1, True), (None, False)):
        monkeypatch.setattr("visiondx.models.generator.free_memory", lambda device, free=free: free)
        assert generator.checkpoints is chosen
        generator.checkpoint = not chosen  # an answer given stays
        assert generator.checkpoints is not chosen
        generator.checkpoint = None


def test_images_are_drawn_in_parts_that_fit(monkeypatch):
    generator = tiny()
    styles, sizes = generator.sample_styles(7, 0), []
    generator.network.synthesis.register_forward_hook(lambda *given: sizes.append(len(given[2])))
    whole = generator.synthesize(styles)
    each = generator.image_bytes(gradient=False)
    monkeypatch.setattr("visiondx.models.generator.free_memory", lambda device: 6 * each)
    assert torch.equal(generator.synthesize(styles), whole)  # too small to be looked at
    monkeypatch.setattr("visiondx.models.generator.SMALL", 0)
    assert torch.allclose(generator.synthesize(styles), whole, atol=1e-6)
    assert sizes == [7, 7, 3, 3, 1]
    generator.synthesize(styles.clone().requires_grad_())  # a search has its own batches
    monkeypatch.setattr("visiondx.models.generator.free_memory", lambda device: 0)
    generator.synthesize(styles[:2])
    assert sizes[5:] == [7, 1, 1]
    assert generator.synthesize(styles[:0]).shape == (0, 3, 16, 16)


def saved_bytes(work):
    """Bytes of all tensors that autograd keeps for the backward pass, and what ``work`` gives."""
    held = {}

    def pack(tensor):
        held[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        found = work()
    return sum(held.values()), found


def test_checkpointing_keeps_less_and_changes_no_bit():
    generator = tiny(64)
    styles = generator.sample_styles(3, 0)
    weights = torch.randn(3, 3, 64, 64)
    held, images, gradients = {}, {}, {}
    for checkpoint in (False, True):
        generator.checkpoint = checkpoint
        leaf = styles.clone().requires_grad_()
        held[checkpoint], images[checkpoint] = saved_bytes(lambda: generator.synthesize(leaf))  # noqa: B023
        score = (images[checkpoint] * weights).sum()
        twice = [torch.autograd.grad(score, leaf, retain_graph=True)[0] for _ in range(2)]
        assert torch.equal(*twice)
        gradients[checkpoint] = twice[0]
    assert torch.equal(images[True], images[False])
    assert torch.equal(gradients[True], gradients[False])
    assert gradients[True].abs().max() > 0
    parameters = sum(p.numel() * 4 for p in generator.parameters())
    assert held[True] - parameters < 0.4 * (held[False] - parameters)


def test_checkpointing_draws_random_noise_again_as_it_was():
    synthesis = tiny(16).network.synthesis
    for name, layer in synthesis.named_layers():
        if not name.endswith("torgb"):
            layer.noise_strength.data.fill_(0.5)
    styles, gradients = torch.randn(2, synthesis.num_styles), []
    for checkpoint in (False, True):
        torch.manual_seed(3)
        leaf = styles.clone().requires_grad_()
        image = synthesis(leaf, noise="random", checkpoint=checkpoint)
        gradients.append(torch.autograd.grad(image.square().sum(), leaf)[0])
    assert torch.equal(*gradients)


def test_a_search_by_checkpoints_is_the_same_search():
    generator = tiny(16)
    directions = Directions(
        ("one", "two"),
        "none",
        torch.randn(2, generator.num_styles),
        torch.zeros(2, 4),
        (0.1, 0.1),
        "two",
    )
    found = []
    for checkpoint in (False, True):
        generator.checkpoint = checkpoint
        styles = generator.sample_styles(2, 1)
        target = Target(GridClassifier({0: 20.0}))
        found.append(search(generator, target, None, directions, styles, settings(steps=2)))
    assert torch.equal(found[0].trajectory_w, found[1].trajectory_w)
    assert torch.equal(found[0].trajectory_p, found[1].trajectory_p)
    assert found[0].trajectory_w.std() > 0


def test_free_memory_is_what_the_system_and_the_control_group_leave(tmp_path, monkeypatch):
    free = core_memory.free_memory()
    assert free is None or free > 2**20
    assert core_memory._group_free(tmp_path) is None  # there is no group
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "memory.current").write_text("300\n")
    assert core_memory._group_free(tmp_path) is None
    (tmp_path / "memory.max").write_text("1000\n")
    assert core_memory._group_free(tmp_path) == 700
    (tmp_path / "memory.stat").write_text("anon 40\nfile 250\ninactive_file 200\n")
    assert core_memory._group_free(tmp_path) == 900  # what was read from files gives way
    monkeypatch.setattr(core_memory, "_group_free", lambda: 700)
    assert core_memory.free_memory() == 700
    monkeypatch.setattr(core_memory, "_group_free", lambda: None)
    monkeypatch.setattr(core_memory, "_available", lambda: None)
    assert core_memory.free_memory() is None
