"""A long state denoised in overlapping windows."""

import math
from collections.abc import Sequence
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from shared.denoiser import DenoiseFn
from shared.windows import window_profile, window_starts, windowed

SIGMA = torch.tensor([2.0, 0.5])
LAYOUTS = [(64, 64, 16), (65, 64, 16), (200, 64, 24), (646, 64, 16), (31, 8, 7), (30, 8, 0)]


def bound(denoise: DenoiseFn, calls: list[tuple[int, ...]] | None = None):
    """The same denoiser for any windows; ``calls`` takes the starts of each call."""

    def windows(starts: Sequence[int]) -> DenoiseFn:
        if calls is not None:
            calls.append(tuple(starts))
        return denoise

    return windows


def pointwise(x: Tensor, sigma: Tensor) -> Tensor:
    return torch.tanh(x) / (1 + sigma.square())[:, None, None, None]


@pytest.mark.parametrize("length, window, overlap", LAYOUTS)
def test_windows_cover_all_and_overlap_enough(length: int, window: int, overlap: int) -> None:
    starts = window_starts(length, window, overlap)
    assert starts[0] == 0 and starts[-1] + window == max(length, window)
    gaps = [second - first for first, second in pairwise(starts)]
    assert all(0 < gap <= window - overlap for gap in gaps)
    assert len(starts) == 1 + math.ceil(max(length - window, 0) / (window - overlap))
    assert max(gaps, default=0) - min(gaps, default=0) <= 1


def test_impossible_windows_are_refused() -> None:
    for length, window, overlap in ((64, 8, 8), (64, 8, -1), (0, 8, 2)):
        with pytest.raises(ValueError, match="overlap"):
            window_starts(length, window, overlap)


def test_a_profile_fades_in_as_its_neighbour_fades_out() -> None:
    profile = window_profile(12, 4)
    fade = [math.sin(math.pi * i / 10) ** 2 for i in (1, 2, 3, 4)]
    assert profile.tolist() == pytest.approx([*fade, *[1] * 4, *fade[::-1]])
    assert torch.allclose(profile[-4:] + profile[:4], torch.ones(4))
    assert window_profile(6, 0).tolist() == [1] * 6


@pytest.mark.parametrize("length, window, overlap", LAYOUTS)
@pytest.mark.parametrize("axis", [-1, 2])
def test_a_pointwise_denoiser_gives_exactly_the_same(
    length: int, window: int, overlap: int, axis: int
) -> None:
    x = torch.randn(2, 3, 4, length, generator=torch.Generator().manual_seed(0))
    x = x.transpose(2, 3).contiguous() if axis == 2 else x
    denoise = windowed(bound(pointwise), length, window, overlap, axis=axis, at_once=3)
    assert torch.equal(denoise(x, SIGMA), pointwise(x, SIGMA))


def test_windows_in_two_axes(length: int = 20) -> None:
    x = torch.randn(2, 3, length, 30, generator=torch.Generator().manual_seed(0))
    columns = windowed(bound(pointwise), 30, 8, 3)
    assert torch.equal(
        windowed(bound(columns), length, 8, 2, axis=2)(x, SIGMA), pointwise(x, SIGMA)
    )


def test_what_fits_into_a_window_is_the_denoiser_itself() -> None:
    calls: list[tuple[int, ...]] = []
    assert windowed(bound(pointwise, calls), 64, 64, 16) is pointwise
    assert calls == [(0,)]


def test_weights_sum_to_one_and_meet_their_own_windows() -> None:
    """Each window says its own number: the result is the weighted mean, worked out by hand."""

    def numbered(starts: Sequence[int]) -> DenoiseFn:
        def denoise(x: Tensor, sigma: Tensor) -> Tensor:
            numbers = torch.tensor(starts, dtype=x.dtype).repeat_interleave(len(x) // len(starts))
            assert torch.equal(sigma, SIGMA.repeat(len(starts)))
            return numbers[:, None, None, None].expand_as(x)

        return denoise

    result = windowed(numbered, 14, 8, 2, at_once=1)(torch.zeros(2, 1, 1, 14), SIGMA)
    # sin^2 of 30 and 60 degrees: a quarter and three quarters of 6
    expected = [0.0] * 6 + [1.5, 4.5] + [6.0] * 6
    assert torch.allclose(result[0, 0, 0], torch.tensor(expected), atol=1e-5)
    for at_once in (2, 5):
        again = windowed(numbered, 14, 8, 2, at_once=at_once)(torch.zeros(2, 1, 1, 14), SIGMA)
        assert torch.equal(result, again)


def test_a_network_that_sees_its_surroundings_leaves_no_seam() -> None:
    """Steps between neighbours where windows meet are as large as anywhere else."""
    kernel = torch.ones(1, 1, 1, 9) / 9

    def blur(x: Tensor, sigma: Tensor) -> Tensor:
        return F.conv2d(x, kernel, padding=(0, 4))  # zeros outside: wrong near a window's edges

    x = 1 + torch.sin(torch.arange(300) * 0.2)[None, None, None]
    starts = window_starts(300, 64, 16)
    steps = windowed(bound(blur), 300, 64, 16)(x, SIGMA[:1]).diff(dim=-1).abs()[0, 0, 0]
    whole = blur(x, SIGMA[:1]).diff(dim=-1).abs()[0, 0, 0, 10:-10].max()
    edges = [place - 1 for start in starts for place in (start, start + 64) if 0 < place < 300]
    assert all(steps[edge] < whole * 1.2 for edge in edges)
    # The test can fail: with all windows counting the same up to their edges, there are seams.
    abrupt = torch.zeros(300)
    count = torch.zeros(300)
    for start in starts:
        abrupt[start : start + 64] += blur(x[..., start : start + 64], SIGMA[:1])[0, 0, 0]
        count[start : start + 64] += 1
    assert max((abrupt / count).diff().abs()[edge] for edge in edges) > whole * 2


def test_a_call_never_takes_more_windows_than_told() -> None:
    calls: list[tuple[int, ...]] = []
    sizes: list[int] = []

    def counting(x: Tensor, sigma: Tensor) -> Tensor:
        sizes.append(len(x))
        return x

    windowed(bound(counting, calls), 1000, 64, 16, at_once=4)(torch.zeros(2, 1, 2, 1000), SIGMA)
    assert max(sizes) == 8 and max(map(len, calls)) == 4  # two samples, four windows each
    assert [start for call in calls for start in call] == window_starts(1000, 64, 16)
