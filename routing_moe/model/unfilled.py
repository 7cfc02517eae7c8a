"""Builds a model whose weights will be loaded, without drawing the random weights of a new one.

Drawing them is most of the time that building takes: a bart-base with three experts draws a billion numbers.
Router and task vectors are drawn, and torch's global generator ends in the state in which drawing everything
leaves it, so that noise and routes drawn later are the same.

The generator is a Mersenne Twister (Matsumoto, Nishimura 1998), whose next state is a linear function of its
state over GF(2). n steps are therefore a polynomial of that function, x^n modulo its characteristic
polynomial, applied to the state (Haramoto et al. 2008). A polynomial is an integer here: bit i is the
coefficient of x^i.
"""

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

N, M, MATRIX, DEGREE = 624, 397, 0x9908B0DF, 19937  # of the twister: words of state, middle word, last row
JUMP_FROM = 2**24  # draws: fewer are drawn, which is faster than a jump
COUNTED = {torch.ops.aten.uniform_.default: 1, torch.ops.aten.normal_.default: 16}  # at least so many numbers


def unfilled_model(cls, config):
    """Returns `cls(config)` with uninitialised instead of random weights, except router and task vectors."""
    start = torch.get_rng_state()
    with SkippedDraws() as skipped:
        model = cls(config)
    routing = [part for part in (model.router, model.task_vectors) if part is not None]
    with SkippedDraws() as last:  # the library initialises them after all layers
        for part in routing:
            part.apply(model._init_weights)
    if not skipped.is_counted:
        torch.set_rng_state(start)
        return cls(config)
    advance(skipped.draws - last.draws)
    for part in routing:
        part.apply(model._init_weights)
    return model


class SkippedDraws(TorchDispatchMode):
    """Leaves tensors as they are instead of filling them with random numbers, and counts these.

    draws: words of 32 bits that the generator would have given. is_counted: False if a kind of draw
    occurred whose number of words is not known here.
    """

    draws, is_counted = 0, True

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if torch.Tag.nondeterministic_seeded not in func.tags:
            return func(*args, **(kwargs or {}))
        filled = args[0]
        if func not in COUNTED or not is_plain(filled) or 0 < filled.numel() < COUNTED[func]:
            self.is_counted = False
            return func(*args, **(kwargs or {}))
        # Normal numbers are made in rows of 16; the last row is drawn again if it is not full.
        refilled = 16 if COUNTED[func] == 16 and filled.numel() % 16 else 0
        self.draws += filled.numel() + refilled
        return filled


def is_plain(tensor: Tensor) -> bool:
    """Returns whether a word is drawn for each number of the tensor."""
    return tensor.device.type == "cpu" and tensor.dtype == torch.float32 and tensor.is_contiguous()


# ---- the generator


def advance(n: int) -> None:
    """Sets torch's global generator to the state after n more draws of 32 bits."""
    if n >= JUMP_FROM:
        return jump(n)
    for size in [2**20] * (n >> 20) + [n % 2**20]:
        torch.rand(size, dtype=torch.float32, device="cpu")


def jump(n: int) -> None:
    state = (
        torch.get_rng_state()
    )  # bytes of: seed, left, is_seeded, next, words, numbers kept for later draws
    left, following = state[8:12].view(torch.int32), state[16:24].view(torch.int64)
    words = state[24 : 24 + 8 * N].view(torch.int64)
    blocks, in_block = divmod(N - int(left) + n, N)  # the generator makes N words at a time
    if blocks:
        words.copy_(
            torch.from_numpy(_words_after(words.numpy().astype(np.uint32), N * blocks).astype(np.int64))
        )
    left.fill_(N - in_block)
    following.fill_(in_block + 1)
    torch.set_rng_state(state)


def _words_after(words: np.ndarray, n: int) -> np.ndarray:
    """Returns N consecutive words that begin n > 0 words after these begin."""
    # The sum begins at the second word, because the lowest bits of the first are not part of the state.
    bits = f"{_power_of_x(n - 1):0{DEGREE}b}"[::-1]
    chosen = 1 + np.flatnonzero(np.array([bit == "1" for bit in bits]))
    windows = np.lib.stride_tricks.sliding_window_view(_continued(words, DEGREE), N)
    return np.bitwise_xor.reduce(windows[chosen])


def _continued(words: np.ndarray, n: int) -> np.ndarray:
    """Returns the words and the n that follow them."""
    words = np.concatenate([words, np.zeros(n, np.uint32)])
    for start in range(0, n, N - M):  # a word depends on the one N - M before it
        k = np.arange(start, min(start + N - M, n))
        mixed = (words[k] & 0x80000000) | (words[k + 1] & 0x7FFFFFFF)
        words[k + N] = words[k + M] ^ (mixed >> 1) ^ (words[k + 1] & 1) * np.uint32(MATRIX)
    return words


def _power_of_x(n: int) -> int:
    """Returns x^n modulo the characteristic polynomial."""
    power = 1
    for bit in f"{n:b}":
        power = int("0".join(f"{power:b}"), 2) << int(bit)  # the square of a polynomial has its bits apart
        while high := power >> DEGREE:
            power ^= _multiple(high)
    return power


def _multiple(factor: int) -> int:
    """Returns the product with the characteristic polynomial (Matsumoto, Nishimura 1998, appendix)."""
    product = factor
    for i in range(31):
        product = (product << (N - 1)) ^ (product << (M - 1)) ^ (factor if MATRIX >> i & 1 else 0)
    return (product << N) ^ (product << M) ^ (factor if MATRIX >> 31 else 0)
