"""Figures of what the explorer of shifts shows, for pages that are read and not run."""

from textwrap import wrap

import torch
from matplotlib.figure import Figure

from visiondx.show import plots
from visiondx.show.words import figure_text
from visiondx.widgets.shift_parts import TITLES
from visiondx.widgets.shift_session import ShiftSession

FADED = 0.3  # what is left of a picture that the filter leaves out


def pictures(session: ShiftSession, shown: int = 8, verdict: bool = True) -> Figure:
    """Rows of the first pictures, pale where the filter leaves them out.

    Above each: the model's probability of the class, with what it says instead if it says another;
    then CLIP's similarities to class and shift, a cross before one that is too small. An empty
    figure where nothing is painted.
    """
    images, titles, names = [], [], []
    for name, row in session.rows.items():
        many, says = min(shown, len(row)), session.says(row)
        kept, right = session.keeps(row), session.right(row)
        of_class, of_shift = session.passes(row)
        names.append(TITLES[name].lower())
        for k in range(many):
            image = row.images[k]
            images.append(image if kept[k] else 1 - FADED * (1 - image))
            p = f"{row.p[k, session.column]:.2f}"
            scores = [f"{'' if of_class[k] else '✕'}c {row.of_class[k]:.2f}"]
            if session.shift.caption:
                scores.append(f"{'' if of_shift[k] else '✕'}s {row.of_shift[k]:.2f}")
            titles.append(f"{p if right[k] else f'{p} {says[k]}'}\n{'  '.join(scores)}")
    if not images:
        return plots.image_grid(torch.ones(1, 3, 8, 8))
    columns = len(images) // len(names)
    grid = plots.image_grid(torch.stack(images), titles, columns, rows=names)
    width, height = grid.get_size_inches()
    grid.set_size_inches(width, height + 0.2 * len(names))  # titles of two lines
    if verdict:
        said = "\n".join(wrap(session.verdict(), 16 * columns))
        grid.suptitle(figure_text(said), fontsize=9)
    return grid


def yields(session: ShiftSession) -> Figure:
    """The filter's yield of each row over t_shift, which a line marks.

    Raises:
        InputError: see ``ShiftSession.yields``.
    """
    frames = {TITLES[name].lower(): frame for name, frame in session.yields().items()}
    figure = plots.curves(frames, "t_shift", "yield", session.shift.name)
    figure.axes[0].axvline(session.t_shift, color="0.2", linewidth=1, linestyle="--")
    return figure
