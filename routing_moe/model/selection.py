"""Route selection: the selection modes, and exploration.

Shapes: N tasks (or B examples), L layers, E experts. A route is (L, E) with rows that sum to 1.
Ye, Zha, Ren 2022 (arXiv 2205.12701), section 3.2; Gumbel-softmax: Jang, Gu, Poole 2017 (arXiv 1611.01144);
top-k: Shazeer et al. 2017 (arXiv 1701.06538), section 2.1; relaxed Bernoulli: Maddison, Mnih, Teh 2017
(arXiv 1611.00712), as in Poly (Ponti et al. 2022, arXiv 2202.13914).
"""

from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from routing_moe.config.choices import ROUTER_MODES

LEAST_WEIGHT = 0.01  # of an expert where training of logits starts


def select_routes(
    logits_NLE: Tensor, mode: str, temperature: float, encoder_layers: int | None = None, top_k=2, noise=True
) -> Tensor:
    """Returns routes (N, L, E) drawn from logits by the function of ROUTER_MODES.

    With `encoder_layers`, Gumbel noise is drawn as one (layers, N, E) block for the encoder, then one for the
    decoder, as in the published code, so that equal seeds give equal draws. Without noise, straight-through
    routes are the one-hot of the best expert.
    """
    if mode not in ROUTER_MODES:
        raise ValueError(f"router mode {mode!r} is not one of {', '.join(ROUTER_MODES)}")
    if not temperature > 0:
        raise ValueError(f"the temperature is {temperature}; it must be greater than 0")
    return ROUTER_MODES[mode](logits_NLE, temperature, noise, encoder_layers=encoder_layers, top_k=top_k)


def softmax(logits_NLE: Tensor, temperature: float, noise: bool, **_) -> Tensor:
    """Returns softmax(logits / temperature)."""
    return torch.softmax(logits_NLE / temperature, dim=-1)


def gumbel(logits_NLE: Tensor, temperature: float, noise: bool, encoder_layers=None, hard=False, **_):
    """Returns the softmax with Gumbel noise on the logits; hard: one-hot, with its gradient."""
    if not noise:
        best_NLE = F.one_hot(logits_NLE.argmax(dim=-1), logits_NLE.shape[-1]).to(logits_NLE.dtype)
        return best_NLE if hard else torch.softmax(logits_NLE / temperature, dim=-1)
    blocks_LNE = logits_NLE.transpose(0, 1)
    cut = blocks_LNE.shape[0] if encoder_layers is None else encoder_layers
    drawn = [
        F.gumbel_softmax(block.contiguous(), tau=temperature, hard=hard, dim=-1)
        for block in (blocks_LNE[:cut], blocks_LNE[cut:])
        if block.shape[0]
    ]
    return torch.cat(drawn, dim=0).transpose(0, 1)


def largest(logits_NLE: Tensor, temperature: float, noise: bool, top_k: int, **_) -> Tensor:
    """Returns the softmax over the `top_k` largest logits, 0 elsewhere (without Shazeer's noise)."""
    kept_NLK = logits_NLE.topk(top_k, dim=-1)
    weights_NLK = torch.softmax(kept_NLK.values / temperature, dim=-1)
    return torch.zeros_like(logits_NLE).scatter(-1, kept_NLK.indices, weights_NLK)


def bernoulli(logits_NLE: Tensor, temperature: float, noise: bool, **_) -> Tensor:
    """Returns for each logit sigmoid((logit + logistic noise) / temperature), divided by the row's sum."""
    if noise:
        epsilon = torch.finfo(logits_NLE.dtype).eps
        logits_NLE = logits_NLE + torch.logit(torch.rand_like(logits_NLE), eps=epsilon)
    return torch.softmax(F.logsigmoid(logits_NLE / temperature), dim=-1)


ROUTER_MODES |= {
    "softmax": softmax,
    "gumbel_softmax": gumbel,
    "gumbel_softmax_st": partial(gumbel, hard=True),
    "top_k": largest,
    "bernoulli": bernoulli,
}


def route_logits(routes_LE: Tensor) -> Tensor:
    """Returns logits (L, E) with mean 0 in every row whose softmax is the route.

    Weights below LEAST_WEIGHT are raised to it, so that training can change the logits of one-hot routes.
    """
    logits_LE = routes_LE.clamp(min=LEAST_WEIGHT).log()
    return logits_LE - logits_LE.mean(dim=-1, keepdim=True)


def explore(routes_BLE: Tensor, epsilon: float) -> Tensor:
    """Returns routes with a random one-hot, without gradient, in rows with probability `epsilon`."""
    B, L, E = routes_BLE.shape
    replaced_BL1 = torch.rand(B, L, 1, device=routes_BLE.device) < epsilon
    random_BLE = random_one_hot((B, L), E, routes_BLE.device).to(routes_BLE.dtype)
    return torch.where(replaced_BL1, random_BLE, routes_BLE)


def random_one_hot(size: tuple[int, ...], num_experts: int, device=None, generator=None) -> Tensor:
    """Returns integers (*size, E): one-hot rows of uniformly drawn experts."""
    return F.one_hot(torch.randint(num_experts, size, device=device, generator=generator), num_experts)
