"""The mapping network's own lesson."""

import torch

from visiondx.models.stylegan2 import MappingNetwork
from visiondx_worlds.training.mapping import mapping_targets, pretrain_mapping
from visiondx_worlds.worlds import faces
from visiondx_worlds.worlds.base import Attributes


def test_targets_by_hand():
    values = torch.tensor([[0.0, 0.0], [1.0, 1.0], [0.0, 2.0], [1.0, 3.0]])
    few = mapping_targets(Attributes(values, ("hat", "size")))
    # two values: standardised, then one-hot (times 2); four values: the same
    assert few.shape == (4, 1 + 2 + 1 + 4)
    assert few[:, 1:3].tolist() == [[2, 0], [0, 2], [2, 0], [0, 2]]
    many = mapping_targets(Attributes(torch.linspace(0, 1, 9)[:, None], ("hue",)))
    assert many.shape == (9, 3)
    # the ends of the range are the same hue; its middle is opposite
    assert torch.allclose(many[0, 1:], many[-1, 1:], atol=1e-5)
    assert torch.allclose(many[4, 1:], -many[0, 1:], atol=1e-5)


def test_w_learns_what_z_stands_for():
    torch.manual_seed(0)
    mapping = MappingNetwork(64, 96, num_layers=3, width=96, lr_multiplier=1.0)
    settings = {"z_dim": 64, "w_dim": 96, "batch": 64, "lr": 5e-3}
    early = pretrain_mapping(mapping, faces, steps=1, **settings)
    late = pretrain_mapping(mapping, faces, steps=150, **settings)
    assert late < 0.75 * early
