"""Same numbers on every run, and Triton's interpreter where there is no GPU.

Each test draws from the same seeds whatever ran before it. VISIONDX_TEST_THREADS sets torch's
threads (1 if unset: the order of a sum then never changes, and tests can run side by side).
"""

import itertools
import os
import random

import numpy as np
import pytest
import torch

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # read when triton is imported, so before any kernel is
os.environ.setdefault("MPLBACKEND", "Agg")
torch.set_num_threads(int(os.environ.get("VISIONDX_TEST_THREADS", "1")))


COUNT = itertools.count()


@pytest.fixture(scope="session", autouse=True)
def _no_users_cache(tmp_path_factory):
    """Nothing is read from the cache of whoever runs the tests, nor written there."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VISIONDX_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(autouse=True)
def user_cache(_no_users_cache, tmp_path_factory, monkeypatch):
    """A cache folder of a test's own; it is made where something is kept."""
    folder = tmp_path_factory.getbasetemp() / f"own-cache-{next(COUNT)}"
    monkeypatch.setenv("VISIONDX_CACHE", str(folder))
    return folder


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
