"""What every method's result offers: a table, a figure, files, and a section of a page."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure


@runtime_checkable
class Result(Protocol):
    """A small frozen dataclass that carries the seed and the settings that made it.

    Attributes:
        heading: of its section, such as "How sensitive the model is".
        said: what may be said of it, and what not: sentences, the most important first.
    """

    @property
    def heading(self) -> str: ...

    @property
    def said(self) -> Sequence[str]: ...

    def to_frame(self) -> "pd.DataFrame":
        """One row a thing that was asked about."""
        ...

    def plot(self, title: str = "") -> "Figure":
        """The figure, not shown."""
        ...

    def save(self, folder: str | Path) -> None:
        """Write it as files that other programs read."""
        ...
