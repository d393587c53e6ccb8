"""Classifier-free guidance is a linear combination, computed in one call of the network."""

import math

import pytest
import torch
from torch import Tensor, nn

from shared.conditioning import Conditioning
from shared.denoiser import Denoiser
from shared.guidance import classifier_free, plain
from shared.parameterization import v
from shared.schedules import NoiseSchedule, linear_betas

SCHEDULE = NoiseSchedule.from_betas(linear_betas())


class Network(nn.Module):
    """Looks at state, time and prompt, each sample by itself; remembers its batch sizes."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(5, 5)
        self.batches: list[int] = []

    def forward(self, x: Tensor, c_noise: Tensor, cond: Conditioning) -> Tensor:
        self.batches.append(len(x))
        assert cond.context is not None
        told = cond.context.mean(1)[:, None, None] + (c_noise / 1000)[:, None, None, None]
        rows = [self.inner(row) for row in (x + told)[:, None]]
        return torch.tanh(torch.cat(rows))


@pytest.fixture
def denoiser() -> Denoiser:
    torch.manual_seed(0)
    return Denoiser(Network(), v(SCHEDULE), SCHEDULE).requires_grad_(False)


def draw(seed: int, batch: int = 3) -> tuple[Tensor, Conditioning, Conditioning]:
    """x (b 1 1 5) and two conditionings with context (b 2 5)."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(batch, 1, 1, 5, generator=generator)
    cond, uncond = torch.randn(2, batch, 2, 5, generator=generator)
    return x, Conditioning(context=cond), Conditioning(context=uncond)


SIGMA = torch.full((3,), 2.0)


@pytest.mark.parametrize("scale", [0.0, 0.5, 2.0, 7.5, -1.0])
def test_is_the_linear_combination_of_two_calls(denoiser, scale):
    x, cond, uncond = draw(0)
    with_cond, without = denoiser(x, SIGMA, cond), denoiser(x, SIGMA, uncond)
    guided = classifier_free(denoiser, cond, uncond, scale)(x, SIGMA)
    assert torch.equal(guided, torch.add(without, with_cond - without, alpha=scale))
    torch.testing.assert_close(guided, (1 - scale) * without + scale * with_cond)


def test_costs_one_call_on_the_doubled_batch(denoiser):
    x, cond, uncond = draw(0)
    denoise = classifier_free(denoiser, cond, uncond, 3.0, sigma_range=(1.0, 5.0))
    for sigma in (0.5, 2.0, 9.0):
        denoise(x, torch.full((3,), sigma))
    classifier_free(denoiser, cond, uncond, 3.0)(x, SIGMA)
    assert denoiser.network.batches == [3, 6, 3, 6]


def test_scale_one_is_the_conditional_result_to_the_bit(denoiser):
    x, cond, uncond = draw(0)
    guided = classifier_free(denoiser, cond, uncond, 1.0)(x, SIGMA)
    assert torch.equal(guided, plain(denoiser, cond)(x, SIGMA))
    assert torch.equal(guided, denoiser(x, SIGMA, cond))
    assert denoiser.network.batches[0] == 3


@pytest.mark.parametrize(
    "sigma, inside", [(0.9, False), (1.0, False), (1.1, True), (5.0, True), (5.1, False)]
)
def test_guides_only_inside_its_range(denoiser, sigma, inside):
    x, cond, uncond = draw(0)
    sigmas = torch.full((3,), sigma)
    ranged = classifier_free(denoiser, cond, uncond, 3.0, sigma_range=(1.0, 5.0))(x, sigmas)
    everywhere = classifier_free(denoiser, cond, uncond, 3.0)(x, sigmas)
    expected = everywhere if inside else plain(denoiser, cond)(x, sigmas)
    assert torch.equal(ranged, expected)
    assert not torch.equal(everywhere, plain(denoiser, cond)(x, sigmas))


@pytest.mark.parametrize("sigma_range", [(0.0, 5.0), (1.0, math.inf)])
def test_samples_of_one_batch_may_lie_on_both_sides_of_the_range(denoiser, sigma_range):
    x, cond, uncond = draw(0)
    denoise = classifier_free(denoiser, cond, uncond, 3.0, sigma_range=sigma_range)
    sigmas = torch.tensor([0.5, 2.0, 9.0])
    mixed = denoise(x, sigmas)
    for i in range(3):
        row = slice(i, i + 1)
        alone = classifier_free(denoiser, cond[row], uncond[row], 3.0, sigma_range=sigma_range)
        assert torch.equal(mixed[row], alone(x[row], sigmas[row]))


def test_a_sample_does_not_depend_on_its_batch(denoiser):
    x, cond, uncond = draw(0)
    together = classifier_free(denoiser, cond, uncond, 4.0)(x, SIGMA)
    for i in range(3):
        row = slice(i, i + 1)
        alone = classifier_free(denoiser, cond[row], uncond[row], 4.0)(x[row], SIGMA[row])
        assert torch.equal(together[row], alone)


def test_both_conditionings_must_set_the_same_fields(denoiser):
    _, cond, _ = draw(0)
    with pytest.raises(ValueError, match="context is set in some of them only"):
        classifier_free(denoiser, cond, Conditioning(), 2.0)
