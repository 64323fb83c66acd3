"""What a kernel's start spends its time on, imported once, by the fork server.

Nothing of visiondx: each notebook imports that for itself, as a person's does.
"""
# ruff: noqa: F401

import gc
import sys
import threading

import ipykernel.ipkernel
import ipywidgets
import matplotlib.pyplot
import open_clip
import pytorch_msssim
import scipy.stats
import seaborn
import sklearn.linear_model
import torchvision.io

for name in ("tqdm.auto", "tqdm.autonotebook"):  # they look for a kernel when they are imported
    sys.modules.pop(name, None)
if threading.active_count() > 1:
    raise RuntimeError(f"a fork would lose these threads: {threading.enumerate()}")
gc.collect()
gc.freeze()  # a kernel's collections then leave what it shares untouched
