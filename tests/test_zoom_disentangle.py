import numpy as np
import pandas as pd
import pytest
import torch

from visiondx.core.errors import InputError
from visiondx.models.target import Target
from visiondx.show import plots
from visiondx.zoom.search import SearchSettings, search
from visiondx_worlds.marking.zoom.disentangle import (
    Disentanglement,
    clip_reader,
    disentanglement,
    judge_reader,
)
from zoom_standins import (
    NEUTRAL,
    GridClassifier,
    GridEncoder,
    GridGenerator,
    along,
    cells,
    prompt,
)

CELLS = (0, 3, 11)
NAMES = ("first", "second", "third")
SETTINGS = SearchSettings(steps=3, eta=3.0, epsilon=4.0, alpha=1.0, beta=0.0, starts=(-1.0, 1.0))


def searched(seeds=(0, 1), images=5, tangled=0.0):
    """Attribute c moves cell c alone; "first" moves the cell of "second" along, if tangled."""
    generator, target = GridGenerator(), Target(GridClassifier({0: 20.0, 3: -9.0, 11: 9.0}))
    directions = along(generator, *CELLS)
    directions.delta_s[0, 3] = tangled
    return [
        search(
            generator, target, None, directions, generator.sample_styles(images, seed), SETTINGS,
            seed=seed,
        )
        for seed in seeds
    ]  # fmt: skip


def read_cells(images):
    return cells(images)[:, list(CELLS)]


# two images, two attributes: [image][edited][read]
BY_HAND = Disentanglement(
    ("a", "b"),
    np.array([[[0.8, 0.1], [0.3, 0.6]], [[0.4, 0.3], [0.1, 0.2]]]),
    np.array([100, 101]),
    "CLIP",
)


def test_matrix_and_ratio_by_hand():
    matrix = BY_HAND.matrix
    assert matrix.loc["a", "a"] == pytest.approx(0.6)
    assert matrix.loc["b", "a"] == pytest.approx(0.2)  # b read, a edited
    assert matrix.loc["a", "b"] == pytest.approx(0.2)
    assert matrix.loc["b", "b"] == pytest.approx(0.4)
    assert BY_HAND.own.value == pytest.approx(0.5)
    assert BY_HAND.others.value == pytest.approx(0.2)
    ratio = BY_HAND.ratio
    assert ratio.value == pytest.approx(2.5)
    # the images' own: (0.8 + 0.6) / (0.1 + 0.3) and (0.4 + 0.2) / (0.3 + 0.1)
    assert (ratio.low, ratio.high, ratio.n) == (pytest.approx(1.5, abs=0.05), pytest.approx(3.5), 2)


def test_leaks_are_ordered_and_named():
    leaks = BY_HAND.leaks()
    assert leaks["leak"].tolist() == [0.3, 0.3, 0.1, 0.1]
    assert leaks.loc[0, ["image", "edited", "leaked", "own"]].tolist() == [0, "b", "a", 0.6]
    assert leaks.loc[1, ["image", "edited", "leaked", "own"]].tolist() == [1, "a", "b", 0.4]
    best = BY_HAND.best(1).iloc[0]
    assert (best.image, best.edited) == (0, "a")
    assert best.margin == pytest.approx(0.7)


def test_untangled_edits_change_what_they_edit_and_nothing_else():
    results = searched()
    found = disentanglement(results, NAMES, {"cells": read_cells})["cells"]
    off = ~np.eye(3, dtype=bool)
    assert found.change.shape == (10, 3, 3)
    assert np.abs(found.change[:, off]).max() < 1e-6
    assert found.ratio.value > 1e4
    std, w = results[0].generator.style_std, torch.cat([r.w for r in results])
    expected = (0.05 * std[list(CELLS)] * w).abs()  # of Eq. 3 in this generator
    diagonal = found.change[:, range(3), range(3)]
    assert np.allclose(diagonal, expected.numpy(), atol=1e-6)
    assert found.seeds.tolist() == [0] * 5 + [1] * 5


def test_a_tangled_edit_shows_in_its_column_and_the_row_of_what_leaked():
    results = searched(tangled=0.4)
    found = disentanglement(results, NAMES, {"cells": read_cells}, batch=3)["cells"]
    w = torch.cat([r.w for r in results])[:, 0].abs().mean()
    matrix = found.matrix
    assert matrix.loc["second", "first"] == pytest.approx(0.05 * 0.4 * float(w), rel=1e-4)
    assert matrix.loc["first", "second"] < 1e-6
    own = np.diag(matrix).mean()
    assert found.ratio.value == pytest.approx(own / (matrix.loc["second", "first"] / 6), rel=1e-3)
    worst = found.leaks().iloc[0]
    assert (worst.edited, worst.leaked) == ("first", "second")


def test_examples_are_the_images_that_were_read():
    results = searched(tangled=0.4)
    found = disentanglement(results, NAMES, {"cells": read_cells})["cells"]
    rows = pd.concat([found.leaks().head(3), found.best(2)])
    images, titles = found.examples(results, rows)
    assert len(images) == len(titles) == 10
    read = read_cells(images).unflatten(0, (5, 2))
    moved = (read[:, 1] - read[:, 0]).abs()
    for row, change, title in zip(rows.itertuples(), moved, titles[1::2], strict=True):
        assert float(change[NAMES.index(row.edited)]) == pytest.approx(row.own, abs=1e-6)
        assert float(change[NAMES.index(row.leaked)]) == pytest.approx(row.leak, abs=1e-6)
        assert title == f"{row.leaked} {row.leak:.2f}"


def test_worst_and_best_stand_beside_each_other():
    results = searched(tangled=0.4)
    found = disentanglement(results, NAMES, {"cells": read_cells})["cells"]
    figure = found.plot_examples(results, count=3)
    titles = [axis.get_title() for axis in figure.axes]
    leaks = found.leaks()
    worst, best = leaks.iloc[0], found.best(1).iloc[0]
    assert titles[0] == f"{worst.edited} {worst.own:.2f}"
    assert titles[2] == f"{best.edited} {best.own:.2f}"
    assert len(titles) == 12
    assert titles[1:12:4] == sorted(titles[1:12:4], reverse=True)  # the worst leak first
    pictures = [axis.images[0].get_array() for axis in figure.axes]
    assert not np.array_equal(pictures[0], pictures[4])  # another image in the next row


@pytest.mark.parametrize("without", [NEUTRAL, prompt(9)])
def test_clips_reading_is_a_softmax_over_with_and_without(without):
    """Cell c is named in two ways, of which one speaks of cell 5."""
    encoder = GridEncoder()
    images = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    phrases = [([prompt(cell), prompt(5)], [without] * 2) for cell in (0, 3)]
    read = clip_reader(encoder, phrases)(images)
    e = encoder.embed_images(images)
    plain, five = (encoder.embed_texts([t])[0] for t in (without, prompt(5)))
    for column, cell in enumerate((0, 3)):
        present = encoder.embed_texts([prompt(cell)])[0] + five
        gap = 10 * (e @ (present / present.norm()) - e @ plain)
        assert torch.allclose(read[:, column], torch.sigmoid(gap), atol=1e-6)


def test_judges_read_their_own_columns():
    class Judges:
        binary = ("dark", "second", "first")

        def column(self, name):
            if name not in self.binary:
                raise InputError(f"No judge reads {name!r}: choose from {', '.join(self.binary)}.")
            return self.binary.index(name)

        def scores(self, images):
            return cells(images)[:, [9, 3, 0]]

    images = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    read = judge_reader(Judges(), ["first", "second"])(images)
    assert torch.equal(read, cells(images)[:, [0, 3]])
    with pytest.raises(InputError, match="No judge reads 'hat'"):
        judge_reader(Judges(), ["hat"])


def test_tables_files_and_figures(tmp_path):
    BY_HAND.save(tmp_path)
    table = pd.read_csv(tmp_path / "disentangle-CLIP.csv").set_index(["changed", "edited"])
    assert table.loc[("b", "a"), "variation"] == pytest.approx(0.2)
    assert (table["n"] == 2).all()
    (axis,) = BY_HAND.plot().axes
    assert axis.get_title() == "CLIP: ratio 2.5"
    assert [text.get_text() for text in axis.texts] == ["0.60", "0.20", "0.20", "0.40"]
    half = BY_HAND.matrix / 2
    figure = plots.matrices([("one", BY_HAND.matrix), ("$2", half), ("x", half)], columns=2)
    assert [a.get_title() for a in figure.axes[:3]] == ["one", r"\$2", "x"]
    tops = [a.collections[0].get_clim()[1] for a in figure.axes[:3]]
    assert tops == pytest.approx([0.6] * 3)  # one colour, one number
    with pytest.raises(InputError, match="at least one panel"):
        plots.matrices([])


def test_input_is_checked():
    with pytest.raises(InputError, match="two or more attributes"):
        Disentanglement(("a",), np.zeros((2, 1, 1)), np.zeros(2), "x")
    with pytest.raises(InputError, match=r"\(B, N, N\), got 2 and \(2, 3, 2\)"):
        Disentanglement(("a", "b"), np.zeros((2, 3, 2)), np.zeros(2), "x")
    results = searched(seeds=(0,))
    with pytest.raises(InputError, match=r"2 attributes need searches of as many.*got \[3\]"):
        disentanglement(results, NAMES[:2], {"cells": read_cells})
    with pytest.raises(InputError, match="a reader"):
        disentanglement(results, NAMES, {})
