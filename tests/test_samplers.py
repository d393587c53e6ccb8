"""Samplers against the exact answer: their order, their distribution, their edges."""

import math
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn

from shared.conditioning import Conditioning
from shared.denoiser import Denoiser
from shared.errors import UserError
from shared.guidance import plain
from shared.noise import NoiseStream, seeded_noise
from shared.parameterization import v
from shared.samplers import SAMPLERS, sample_ddim, sample_ddpm, sample_euler, sample_heun
from shared.schedules import NoiseSchedule, exponential, karras, linear_betas
from tests.analytic import (
    GaussianMixture,
    fine_flow,
    gaussian_flow,
    single_gaussian,
    three_modes,
)

HIGH, LOW = 10.0, 0.05
DETERMINISTIC = [name for name, sampler in SAMPLERS.items() if not sampler.stochastic]


def grid(n: int, kind=exponential) -> Tensor:
    """n steps from HIGH to LOW, float64: where the ODE is smooth and an order can be observed."""
    return kind(n + 1, LOW, HIGH)[:-1].double()


def start(n: int = 256, sigma: float = HIGH) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return sigma * torch.randn(n, 1, 1, 2, generator=generator, dtype=torch.float64)


@pytest.fixture(scope="module")
def exact() -> Tensor:
    return fine_flow(three_modes().denoise, start(), grid(400))


@pytest.mark.parametrize("kind", [exponential, karras])
@pytest.mark.parametrize("name", DETERMINISTIC)
def test_converges_to_the_exact_flow_with_its_order(name, kind, exact):
    sampler, mixture = SAMPLERS[name], three_modes()
    errors = [
        (sampler.function(mixture.denoise, start(), grid(n, kind)) - exact).square().mean().sqrt()
        for n in (40, 80, 160)
    ]
    orders = [math.log2(coarse / fine) for coarse, fine in pairwise(errors)]
    assert orders == pytest.approx([sampler.order] * 2, abs=0.1)
    assert errors[-1] < {1: 1e-2, 2: 1e-3}[sampler.order]


@pytest.mark.parametrize("name", DETERMINISTIC)
def test_reaches_sigma_zero_where_the_closed_solution_is(name):
    gaussian, sampler = single_gaussian(), SAMPLERS[name]
    x = start(sigma=80.0)
    exact = gaussian_flow(gaussian, x, 80.0, 0.0)
    errors = []
    for n in (50, 200):
        x0 = sampler.function(gaussian.denoise, x, karras(n, 0.002, 80.0).double())
        errors.append((x0 - exact).abs().max())
    assert errors[1] < {1: 4e-2, 2: 1e-3}[sampler.order]
    assert errors[1] < errors[0] / 3


def test_the_reference_itself_is_exact():
    gaussian = single_gaussian()
    flow = gaussian_flow(gaussian, start(), HIGH, LOW)
    torch.testing.assert_close(fine_flow(gaussian.denoise, start(), grid(400)), flow)


@pytest.mark.parametrize("name", SAMPLERS)
def test_one_step_to_zero_is_the_denoised_state_exactly(name):
    mixture, x = three_modes(), start(8).float()
    sigmas = torch.tensor([HIGH, 0.0])
    x0 = SAMPLERS[name].function(mixture.denoise, x, sigmas, noise=NoiseStream(range(8), (1, 1, 2)))
    assert torch.equal(x0, mixture.denoise(x, torch.full((8,), HIGH)))


@pytest.mark.parametrize("name", SAMPLERS)
def test_calls_and_callbacks_are_as_declared(name):
    mixture, sampler, n = three_modes(), SAMPLERS[name], 6
    sigmas = karras(n, 0.02, HIGH)
    called: list[Tensor] = []
    steps: list[tuple[int, float]] = []

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        assert sigma.shape == (3,) and sigma.dtype == x.dtype == torch.float32
        called.append(x)
        return mixture.denoise(x, sigma)

    def callback(step: int, x: Tensor, sigma: float, denoised: Tensor) -> None:
        steps.append((step, sigma))
        torch.testing.assert_close(denoised, mixture.denoise(x, torch.full((3,), sigma)))

    x = seeded_noise([0, 1, 2], (1, 1, 2)) * sigmas[0]
    before = x.clone()
    noise = NoiseStream([0, 1, 2], (1, 1, 2))
    x0 = sampler.function(denoise, x, sigmas, noise=noise, callback=callback)

    assert x0.isfinite().all() and x0.dtype == torch.float32
    assert torch.equal(x, before), "the caller's state is not overwritten"
    assert steps == list(enumerate(sigmas[:-1].tolist()))
    # A second evaluation has no place in the step to 0.
    assert len(called) == n * sampler.evaluations_per_step - (sampler.evaluations_per_step - 1)


def test_ddim_with_eta_zero_is_euler():
    mixture, sigmas = three_modes(), karras(12, 0.02, HIGH)
    euler = sample_euler(mixture.denoise, start(), sigmas)
    torch.testing.assert_close(sample_ddim(mixture.denoise, start(), sigmas), euler)


def test_ddim_with_eta_one_is_ddpm_given_the_same_noise():
    mixture, sigmas = three_modes(), karras(30, 0.02, HIGH)
    noise = NoiseStream(range(256), (1, 1, 2))
    ddpm = sample_ddpm(mixture.denoise, start(), sigmas, noise=noise)
    ddim = sample_ddim(mixture.denoise, start(), sigmas, noise=noise, eta=1.0)
    torch.testing.assert_close(ddim, ddpm, rtol=0, atol=1e-12)
    half = sample_ddim(mixture.denoise, start(), sigmas, noise=noise, eta=0.5)
    assert (half - ddpm).abs().mean() > 0.1


def moments(x: Tensor) -> tuple[Tensor, Tensor]:
    flat = x.flatten(1)
    return flat.mean(0), flat.T.cov()


@pytest.mark.parametrize(
    "sample",
    [
        sample_ddpm,
        lambda *args, **noise: sample_ddim(*args, **noise, eta=0.5),
        lambda *args, **noise: sample_euler(*args, **noise, s_churn=40.0),
        lambda *args, **noise: sample_heun(*args, **noise, s_churn=40.0),
    ],
    ids=["ddpm", "ddim eta .5", "euler churn", "heun churn"],
)
def test_stochastic_samplers_draw_from_the_mixture(sample):
    mixture: GaussianMixture = three_modes()
    n = 6000
    generator = torch.Generator().manual_seed(3)
    x = 40 * torch.randn(n, 1, 1, 2, generator=generator, dtype=torch.float64)

    def noise(step: int) -> Tensor:
        return torch.randn(x.shape, generator=generator, dtype=torch.float64)

    x0 = sample(mixture.denoise, x, karras(400, 0.02, 40.0), noise=noise)
    mean, covariance = moments(x0)
    # The standard error of a mean of 6000 is 0.013, of a variance about 0.017.
    torch.testing.assert_close(mean, mixture.mean(), atol=0.05, rtol=0)
    torch.testing.assert_close(covariance, mixture.covariance(), atol=0.06, rtol=0)


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_sample_does_not_depend_on_its_batch_and_repeats_to_the_byte(name):
    torch.manual_seed(0)
    schedule = NoiseSchedule.from_betas(linear_betas())
    shape = (3, 6, 6)

    class Network(nn.Module):
        """Each sample by itself, as a batch may be reduced in another order."""

        def __init__(self):
            super().__init__()
            self.inner = nn.Conv2d(3, 3, 3, padding=1)

        def forward(self, x, c_noise, cond):
            rows = [self.inner(row + t / 1000) for row, t in zip(x[:, None], c_noise, strict=True)]
            return torch.cat(rows)

    denoiser = Denoiser(Network(), v(schedule), schedule)

    @torch.inference_mode()
    def sample(seeds: list[int]) -> Tensor:
        sigmas = karras(8, schedule.sigma_min, schedule.sigma_max)
        x = seeded_noise(seeds, shape) * sigmas[0]
        denoise = plain(denoiser, Conditioning())
        return SAMPLERS[name].function(denoise, x, sigmas, noise=NoiseStream(seeds, shape))

    batch = sample([5, 9, 2])
    assert torch.equal(batch, sample([5, 9, 2]))
    for i, seed in enumerate([5, 9, 2]):
        assert torch.equal(batch[i : i + 1], sample([seed]))


@pytest.mark.parametrize(
    "call",
    [
        lambda x, sigmas: sample_ddpm(three_modes().denoise, x, sigmas),
        lambda x, sigmas: sample_ddim(three_modes().denoise, x, sigmas, eta=0.3),
        lambda x, sigmas: sample_euler(three_modes().denoise, x, sigmas, s_churn=1.0),
        lambda x, sigmas: sample_heun(three_modes().denoise, x, sigmas, s_churn=1.0),
    ],
)
def test_missing_noise_is_an_error(call):
    with pytest.raises(UserError, match="pass noise"):
        call(start(2), karras(3, 0.1, HIGH))


@pytest.mark.parametrize("eta", [-0.1, 1.1])
def test_eta_outside_its_range_is_refused(eta):
    noise = NoiseStream([0, 1], (1, 1, 2))
    with pytest.raises(UserError, match="eta must be between 0 and 1"):
        sample_ddim(three_modes().denoise, start(2), karras(3, 0.1, HIGH), noise=noise, eta=eta)


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize(
    "sigmas", [[1.0], [0.0, 1.0], [2.0, 1.0, 1.0], [1.0, -0.5], [math.inf, 1.0], [math.nan, 0.0]]
)
def test_grids_that_do_not_descend_are_refused(name, sigmas):
    noise = NoiseStream([0, 1], (1, 1, 2))
    with pytest.raises(UserError, match="descending"):
        SAMPLERS[name].function(three_modes().denoise, start(2), torch.tensor(sigmas), noise=noise)
