"""Random numbers that depend on where they are used and on nothing else, made on the device in one go."""

import torch
from torch import Tensor

from lm.sampling import widest

GOLDEN_GAMMA = 0x9E3779B97F4A7C15


def uniform(seed: int, sentences: Tensor, position: int, count: int) -> Tensor:
    """Draws from (0, 1), a function of the seed, the sentence, the position in its translation and the place among `count`.

    Each sentence and position reads a SplitMix64 generator of its own (Steele, Lea & Flood 2014, fig. 16), whose i-th number
    needs none of those before it.

    Args:
        sentences: numbers `(sentences,)` of the sentences.

    Returns:
        `(sentences, count)`, in double precision where the device has it.
    """
    key = mix(mix(mix(torch.full_like(sentences, signed(seed % (1 << 64)))) + sentences) + position)
    places = torch.arange(1, count + 1, device=sentences.device) * signed(GOLDEN_GAMMA)
    bits = mix(key[:, None] + places)
    dtype = widest(bits.device)
    # The middles of 2^52 equal intervals: neither 0 nor 1, and all exact in double precision.
    draws = (shift(bits, 12).to(dtype) + 0.5) * 2.0**-52
    return draws.clamp_(max=1 - torch.finfo(dtype).eps / 2)


def mix(z: Tensor) -> Tensor:
    """The output function of SplitMix64, a bijection of 64-bit integers."""
    z = (z ^ shift(z, 30)) * signed(0xBF58476D1CE4E5B9)
    z = (z ^ shift(z, 27)) * signed(0x94D049BB133111EB)
    return z ^ shift(z, 31)


def shift(z: Tensor, bits: int) -> Tensor:
    """To the right, zeros coming in; torch would copy the sign."""
    return (z >> bits) & ((1 << (64 - bits)) - 1)


def signed(constant: int) -> int:
    """A 64-bit constant as torch, which only knows signed ones, writes it."""
    return constant - (1 << 64) if constant >= 1 << 63 else constant
