"""One long state denoised by a network that was trained on a shorter one.

MultiDiffusion (Bar-Tal et al. 2023, arXiv 2302.08113): in each step the network sees overlapping
windows of the state, and what it says of the places they share is averaged with weights, which is
the closest single answer to all windows (Eq. 5). The result is one more ``DenoiseFn``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from shared.denoiser import DenoiseFn

WindowsFn = Callable[[Sequence[int]], DenoiseFn]
"""Starts of n windows -> a ``DenoiseFn`` over them, stacked window by window: (n * b ...).

It binds each window's own conditioning, so it is told where they lie.
"""


def window_starts(length: int, window: int, overlap: int) -> list[int]:
    """Where the fewest windows start that cover ``length``, neighbours sharing ``overlap`` or more.

    Evenly spaced up to rounding; the first begins at 0 and the last ends at ``length``. One start
    alone, 0, where ``length`` fits into a window.

    Raises:
        ValueError: no window can have that overlap.
    """
    if not 0 <= overlap < window or length < 1:
        raise ValueError(f"windows of {window} cannot overlap by {overlap} over a length {length}")
    if length <= window:
        return [0]
    gaps = -(-(length - window) // (window - overlap))
    return [round(i * (length - window) / gaps) for i in range(gaps + 1)]


def window_profile(window: int, overlap: int) -> Tensor:
    """How much a window counts, (window,): 1 in its middle, falling over ``overlap`` at each end.

    As a squared sine, for at its very edges a window knows only one side of its surroundings. Of
    two windows that share just ``overlap``, one fades in as the other fades out: the sum is 1.
    """
    ramp = (torch.arange(1, window + 1) / (overlap + 1)).clamp(max=1)
    return torch.sin(torch.minimum(ramp, ramp.flip(0)) * (torch.pi / 2)).square()


def windowed(
    denoise_windows: WindowsFn,
    length: int,
    window: int,
    overlap: int,
    *,
    axis: int = -1,
    at_once: int = 4,
) -> DenoiseFn:
    """A ``DenoiseFn`` over a state of ``length`` along ``axis``, made of one over its windows.

    For windows in two axes, let ``denoise_windows`` of the one be ``windowed`` along the other, as
    :func:`windowed_plane` does.

    Args:
        denoise_windows: gives the ``DenoiseFn`` of the windows that start at given places.
        length: of the state along ``axis``; where it fits into one window, the result is
            ``denoise_windows([0])`` itself.
        window: the length that the network takes, at most.
        overlap: what neighbouring windows share at least.
        axis: of the state, not the batch's.
        at_once: windows computed in one call, so that memory does not grow with ``length``.

    Raises:
        ValueError: no window can have that overlap.
    """
    starts = window_starts(length, window, overlap)
    if len(starts) == 1:
        return denoise_windows(starts)
    profile = window_profile(window, overlap)

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        along = [1] * x.dim()
        along[axis] = -1
        weight = profile.to(x).reshape(along)
        total = x.new_zeros(length).reshape(along)  # of the weights so far
        denoised = torch.zeros_like(x)
        for first in range(0, len(starts), at_once):
            here = starts[first : first + at_once]
            windows = torch.cat([x.narrow(axis, start, window) for start in here])  # n * b ...
            results = denoise_windows(here)(windows, sigma.repeat(len(here)))
            for start, result in zip(here, results.chunk(len(here)), strict=True):
                # A running weighted mean: where all windows agree, it is exactly what they say.
                seen = total.narrow(axis, start, window).add_(weight)
                mean = denoised.narrow(axis, start, window)
                mean.copy_(torch.lerp(mean, result, weight / seen))
        return denoised

    return denoise


def circular_starts(length: int, window: int, overlap: int, turn: float = 0.0) -> list[int]:
    """Where the fewest windows start that cover a circle of ``length``; see :func:`circular`.

    Evenly spaced up to rounding, each in 0 .. length - 1.

    Args:
        turn: how far the windows are turned on, as a share of their spacing.

    Raises:
        ValueError: no window can have that overlap.
    """
    if not 0 <= overlap < window or length < 1:
        raise ValueError(f"windows of {window} cannot overlap by {overlap} over a length {length}")
    count = -(-length // (window - overlap))
    offset = int(turn * length / count)
    return [(offset + i * length // count) % length for i in range(count)]


def circular(
    denoise_windows: WindowsFn,
    length: int,
    window: int,
    overlap: int,
    *,
    axis: int = -1,
    at_once: int = 4,
) -> DenoiseFn:
    """:func:`windowed` over a state whose end goes on at its beginning: a loop, a panorama.

    Windows reach over the end, so that no place is an edge; in a state shorter than a window the
    network sees places twice, which is what a loop that is played on sounds like. From noise level
    to noise level the windows turn on, so that no place is always at the edge of one.

    Args:
        denoise_windows: gives the ``DenoiseFn`` of the windows that start at given places, each
            0 .. length - 1; what lies beyond the end is the beginning.

    The others are those of :func:`windowed`.

    Raises:
        ValueError: no window can have that overlap.
    """
    circular_starts(length, window, overlap)
    profile = window_profile(window, overlap)

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        along = [1] * x.dim()
        along[axis] = -1
        weight = profile.to(x).reshape(along)
        total = x.new_zeros(length).reshape(along)  # of the weights so far
        denoised = torch.zeros_like(x)
        starts = circular_starts(length, window, overlap, _turn(sigma))
        for first in range(0, len(starts), at_once):
            here = starts[first : first + at_once]
            places = [(torch.arange(window, device=x.device) + s) % length for s in here]
            windows = torch.cat([x.index_select(axis, place) for place in places])  # n * b ...
            results = denoise_windows(here)(windows, sigma.repeat(len(here)))
            for place, result in zip(places, results.chunk(len(here)), strict=True):
                total.index_add_(axis, place, weight)
                denoised.index_add_(axis, place, result * weight)
        return denoised / total

    return denoise


def _turn(sigma: Tensor) -> float:
    """A share in 0 .. 1 that differs from noise level to noise level, and depends on that alone."""
    golden = (5**0.5 - 1) / 2  # multiples of it spread evenly, however many there are
    return (math.log(max(sigma.flatten()[0].item(), 1e-9)) * 100 * golden) % 1.0


def windowed_plane(
    denoise: DenoiseFn,
    size: tuple[int, int],
    window: tuple[int, int],
    *,
    wrap: bool = False,
    at_once: int = 4,
) -> DenoiseFn:
    """Windows in both axes of a state of ``size`` (h, w); where one holds an axis, that one alone.

    Several windows along an axis share half of it with their neighbours.

    Args:
        denoise: takes any number of windows of one and the same state, stacked (n * b ...).
        window: height and width that the network takes.
        wrap: whether the state goes on at the other side, as a tile does. An axis that one window
            holds is then turned on from noise level to noise level, so that its ends move about.
        at_once: windows computed in one call.
    """
    height, width = (
        length if length <= in_one_piece(most) else most
        for length, most in zip(size, window, strict=True)
    )
    along = circular if wrap else windowed

    def rows(starts: Sequence[int]) -> DenoiseFn:
        overlap = 0 if width == size[1] else width // 2
        return along(lambda _: denoise, size[1], width, overlap, at_once=at_once)

    # One row of windows a call: the columns within it are what is computed together.
    overlap = 0 if height == size[0] else height // 2
    return along(rows, size[0], height, overlap, axis=-2, at_once=1)


def in_one_piece(window: int) -> int:
    """The longest length that is not cut into windows: an eighth more than one.

    A network does not mind so little more than it was trained on, and two windows that share nearly
    all would cost twice as much.
    """
    return window + window // 8
