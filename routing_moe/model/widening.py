"""Widens the feed-forward layers of a BART by copies of their units, without changing its function.

A unit is a row of fc1, with its bias, and a column of fc2. Each of its k copies has the same inputs and 1/k
of the output weights, so that their sum is the output of the unit (Net2WiderNet: Chen, Goodfellow, Shlens
2016, arXiv 1511.05641). Copies that are equal get equal gradients and stay equal, and with small noise they
stay almost equal. So the output weights get noise of their own size that sums to 0 over the copies of a unit:
it cancels in the output, but the input weights of the copies get different gradients.
"""

import logging

import torch
from torch import Tensor

WIDTHS = {"encoder": "encoder_ffn_dim", "decoder": "decoder_ffn_dim"}  # {side: field of a configuration}

log = logging.getLogger("routing_moe")


def widened(plain: dict[str, Tensor], config) -> dict[str, Tensor]:
    """Returns the state dict of a plain BART with feed-forward layers as wide as those of `config`.

    A side stays as it is if its width in `config` is no larger multiple of that in `plain`. The noise comes
    from torch's global generator. Before it is centred, it has the standard deviation of the divided weights.
    """
    state = dict(plain)
    for side, field in WIDTHS.items():
        own = sorted(name for name in plain if name.startswith(f"model.{side}.layers."))
        width = next((len(plain[name]) for name in own if name.endswith(".fc1.weight")), 0)
        times, rest = divmod(getattr(config, field), width) if width else (1, 0)
        if rest or times < 2:
            continue
        log.debug("%s: each of %d feed-forward units is copied %d times", side, width, times)
        for name in own:
            if name.endswith((".fc1.weight", ".fc1.bias")):
                state[name] = torch.cat([plain[name]] * times)
            elif name.endswith(".fc2.weight"):
                share_DF = plain[name] / times
                noise_KDF = share_DF.std() * torch.randn(times, *share_DF.shape).to(share_DF)
                state[name] = torch.cat([*(share_DF + noise_KDF - noise_KDF.mean(dim=0))], dim=1)
    return state
