"""Widens the feed-forward layers of a BART by copies of their units, without changing its function.

A unit is a row of fc1, with its bias, and a column of fc2. Each of its k copies has the same inputs and 1/k
of the output weights, so that their sum is the output of the unit (Net2WiderNet: Chen, Goodfellow, Shlens
2016, arXiv 1511.05641). Copies that are equal get equal gradients and stay equal, unless activation dropout
masks them differently. So they get noise, as the copies of a layer do that become experts.
"""

import logging

import torch
from torch import Tensor

WIDTHS = {"encoder": "encoder_ffn_dim", "decoder": "decoder_ffn_dim"}  # {side: field of a configuration}

log = logging.getLogger("routing_moe")


def widened(plain: dict[str, Tensor], config, noise: float) -> dict[str, Tensor]:
    """Returns the state dict of a plain BART with feed-forward layers as wide as those of `config`.

    A side stays as it is if its width in `config` is no larger multiple of that in `plain`. noise: standard
    deviation of the normal noise that is added to the weights of all copies.
    """
    state = dict(plain)
    for side, field in WIDTHS.items():
        own = sorted(name for name in plain if name.startswith(f"model.{side}.layers."))
        width = next((len(plain[name]) for name in own if name.endswith(".fc1.weight")), 0)
        times, rest = divmod(getattr(config, field), width) if width else (1, 0)
        if rest or times < 2:
            continue
        log.info("%s: each of %d feed-forward units is copied %d times", side, width, times)
        for name in own:
            if name.endswith((".fc1.weight", ".fc1.bias")):
                copies = torch.cat([plain[name]] * times)
            elif name.endswith(".fc2.weight"):
                copies = torch.cat([plain[name]] * times, dim=1) / times
            else:
                continue
            state[name] = copies + noise * torch.randn(copies.shape).to(copies)
    return state
