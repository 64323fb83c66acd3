"""Same numbers on every run, and Triton's interpreter where there is no GPU.

Each test draws from the same seeds whatever ran before it. VISIONDX_TEST_THREADS sets torch's
threads (1 if unset: the order of a sum then never changes, and tests can run side by side).
"""

import os
import random

import numpy as np
import pytest
import torch

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # read when triton is imported, so before any kernel is
os.environ.setdefault("MPLBACKEND", "Agg")
torch.set_num_threads(int(os.environ.get("VISIONDX_TEST_THREADS", "1")))


@pytest.fixture(autouse=True)
def _seeded():
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002 - libraries still draw from it
    torch.manual_seed(0)


@pytest.fixture
def gpu():
    """New tensors are made on the GPU, if there is one: Triton compiles there, or interprets."""
    torch.set_default_device("cuda" if torch.cuda.is_available() else "cpu")
    yield
    torch.set_default_device(None)
