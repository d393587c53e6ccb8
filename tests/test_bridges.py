"""Brownian bridges as noise that a denoiser removes: their exact means and variances."""

import pytest
import torch

from shared.bridges import bridge_kind, bridge_noise, walk_bridge
from shared.conditioning import Conditioning
from shared.denoiser import Denoiser
from shared.noise import NoiseStream, seeded_noise

S, COUNT = 0.7, 4000


def test_steps_are_those_of_a_brownian_bridge():
    """With a denoiser that knows the end, each state has the mean and variance of the bridge."""
    start = torch.full((COUNT, 2, 1, 1), -1.0)
    noise = NoiseStream(range(COUNT), (2, 1, 1))
    path = walk_bridge(lambda x, sigma: torch.ones_like(x), start, S, 4, noise)
    left = torch.linspace(1, 0, 5)  # the time that is left
    assert torch.equal(path[0], start) and torch.equal(path[-1], torch.ones_like(start))
    torch.testing.assert_close(path.mean((1, 2, 3, 4)), 1 - 2 * left, atol=0.03, rtol=0)
    variance = path.flatten(1).var(1)
    torch.testing.assert_close(variance, S**2 * left * (1 - left), atol=0.02, rtol=0)


@pytest.mark.parametrize("t", [0.1, 0.5, 1.0])
def test_what_is_trained_on_is_what_is_walked(t: float):
    start, end = torch.full((COUNT, 1, 1, 1), -1.0), torch.full((COUNT, 1, 1, 1), 2.0)
    drawn = seeded_noise(range(COUNT), (1, 1, 1))
    noise, sigma = bridge_noise(start, end, torch.full((COUNT,), t), drawn, S)
    torch.testing.assert_close(sigma, torch.full((COUNT,), S * t**0.5))
    state = end + sigma[:, None, None, None] * noise
    expected = (2 - 3 * t) + S * (t * (1 - t)) ** 0.5 * drawn
    torch.testing.assert_close(state, expected, atol=1e-5, rtol=0)


def test_a_network_that_is_right_says_numbers_of_one_size():
    """The kind's target has about unit variance at every level, for ends ``apart`` apart."""

    class Silent(torch.nn.Module):
        def forward(self, x, c_noise, cond):
            return torch.zeros_like(x)

    denoiser = Denoiser(Silent(), bridge_kind(S, apart=2.0))
    end = 2 * seeded_noise(range(COUNT), (1, 1, 1))
    start, drawn = torch.zeros_like(end), seeded_noise(range(COUNT, 2 * COUNT), (1, 1, 1))
    for t in (0.01, 0.3, 1.0):
        noise, sigma = bridge_noise(start, end, torch.full((COUNT,), t), drawn, S)
        assert denoiser.target(end, noise, sigma).std().item() == pytest.approx(1, abs=0.03)
        x = end + sigma[:, None, None, None] * noise  # silence says: the end is here
        torch.testing.assert_close(denoiser(x, sigma, Conditioning()), x)
