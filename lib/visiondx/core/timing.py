"""Timings on a busy machine: what is compared takes turns, so a disturbance meets all of it.

And the memory of a call on the CPU, which no other process disturbs.
"""

import time
from collections.abc import Callable, Mapping

import pandas as pd
import torch
from torch.profiler import ProfilerActivity, profile
from tqdm.auto import tqdm


def race(
    calls: Mapping[str, Callable[[], object]], turns: int, title: str = "timing"
) -> pd.DataFrame:
    """Seconds of each call, by turn: (turns) x (names of calls). A turn to warm up is not counted.

    The ratio of two columns, turn by turn, is what a busy machine leaves comparable.
    """
    rows = []
    for _ in tqdm(range(turns + 1), desc=title, unit="turn"):
        row = {}
        for name, call in calls.items():
            start = _now()
            call()
            row[name] = _now() - start
        rows.append(row)
    return pd.DataFrame(rows[1:], columns=list(calls)).rename_axis("turn")


def _now() -> float:
    """Seconds; a GPU has then done what it was asked before."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def peak_memory(call: Callable[[], object]) -> int:
    """Bytes of CPU tensors that ``call`` holds at once, beyond those that were there before.

    Counted by PyTorch's allocator, so that the size of the process and its caches do not matter.
    """
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as found:
        call()
    events = [e for e in found.profiler.kineto_results.events() if e.name() == "[memory]"]
    held = top = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        held += event.nbytes()
        top = max(top, held)
    return top
