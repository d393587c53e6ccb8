"""Every sampler: its edges, its declared cost, and that a sample depends on its seed alone."""

import math
from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from shared.conditioning import Conditioning
from shared.denoiser import Denoiser
from shared.errors import UserError
from shared.guidance import plain
from shared.noise import NoiseStream, seeded_noise
from shared.parameterization import v
from shared.samplers import (
    SAMPLERS,
    RestartInterval,
    invert_ddim,
    sample_annealed_langevin,
    sample_ddim,
    sample_ddpm,
    sample_deis,
    sample_dpm2_ancestral,
    sample_dpmpp_2m_sde,
    sample_dpmpp_2s_ancestral,
    sample_dpmpp_3m_sde,
    sample_dpmpp_sde,
    sample_euler,
    sample_euler_ancestral,
    sample_heun,
    sample_lms,
    sample_predictor_corrector,
    sample_unipc,
)
from shared.schedules import NoiseSchedule, karras, linear_betas
from tests.analytic import three_modes
from tests.walks import HIGH, start

STOCHASTIC = [name for name, sampler in SAMPLERS.items() if sampler.stochastic]
ONE_STEP = [name for name in SAMPLERS if name != "langevin"]  # which moves x at its first level


def calls_of(name: str, n: int) -> int | None:
    """How often ``denoise`` is called in n steps to 0, of a grid from HIGH to 0.02."""
    each = SAMPLERS[name].evaluations_per_step
    if each is None:
        return None  # it chooses its own steps
    # A second evaluation has no place in the step to 0; Langevin dynamics has all of its own.
    # PLMS begins with one more; restart goes back twice over three steps of Heun's method.
    special = {"langevin": n * each, "plms": n + 1, "restart": 2 * n - 1 + 2 * 3 * 2}
    return special.get(name, n * each - (each - 1))


@pytest.mark.parametrize("name", ONE_STEP)
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
        expected = mixture.denoise(x, torch.full((3,), sigma))
        # Between its own steps, an adaptive one tells what its polynomial has there.
        off = {"rtol": 0, "atol": 5e-2} if sampler.order is None else {}
        torch.testing.assert_close(denoised, expected, **off)

    x = seeded_noise([0, 1, 2], (1, 1, 2)) * sigmas[0]
    before = x.clone()
    noise = NoiseStream([0, 1, 2], (1, 1, 2))
    x0 = sampler.function(denoise, x, sigmas, noise=noise, callback=callback)

    assert x0.isfinite().all() and x0.dtype == torch.float32
    assert torch.equal(x, before), "the caller's state is not overwritten"
    assert steps == list(enumerate(sigmas[:-1].tolist()))
    assert calls_of(name, n) in (len(called), None)


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


WITHOUT_NOISE = {
    **{name: SAMPLERS[name].function for name in STOCHASTIC},
    "ddim eta": partial(sample_ddim, eta=0.3),
    "euler churn": partial(sample_euler, s_churn=1.0),
    "heun churn": partial(sample_heun, s_churn=1.0),
}


@pytest.mark.parametrize("sample", WITHOUT_NOISE.values(), ids=WITHOUT_NOISE)
def test_missing_noise_is_an_error(sample):
    with pytest.raises(UserError, match="pass noise"):
        sample(three_modes().denoise, start(2), karras(3, 0.1, HIGH))


@pytest.mark.parametrize("name", STOCHASTIC)
def test_no_noise_is_used_twice(name):
    asked: list[int] = []

    def noise(step: int) -> Tensor:
        asked.append(step)
        return torch.ones(2, 1, 1, 2)

    SAMPLERS[name].function(three_modes().denoise, start(2), karras(6, 0.02, HIGH), noise=noise)
    assert len(set(asked)) == len(asked) >= 2


@pytest.mark.parametrize("eta", [-0.1, 1.1, math.nan])
@pytest.mark.parametrize(
    "sample",
    [
        sample_ddim,
        sample_euler_ancestral,
        sample_dpm2_ancestral,
        sample_dpmpp_2s_ancestral,
        sample_dpmpp_sde,
        sample_dpmpp_2m_sde,
        sample_dpmpp_3m_sde,
    ],
)
def test_eta_outside_its_range_is_refused(sample, eta):
    noise = NoiseStream([0, 1], (1, 1, 2))
    with pytest.raises(UserError, match="eta must be between 0 and 1"):
        sample(three_modes().denoise, start(2), karras(3, 0.1, HIGH), noise=noise, eta=eta)


@pytest.mark.parametrize(
    ("sample", "match"),
    [
        (partial(sample_ddpm, variance="medium"), "small"),
        (partial(sample_lms, order=5), "order of LMS"),
        (partial(sample_deis, order=0), "order of DEIS"),
        (partial(sample_unipc, order=4), "order of UniPC"),
        (partial(sample_annealed_langevin, steps_per_level=0), "at least 1"),
        (partial(sample_annealed_langevin, step_size=2.5), "step_size"),
        (partial(sample_predictor_corrector, snr=0.0), "snr above 0"),
        (partial(sample_predictor_corrector, corrections=-1), "corrections"),
    ],
)
def test_parameters_outside_their_range_are_refused(sample: Callable[..., Tensor], match: str):
    noise = NoiseStream([0, 1], (1, 1, 2))
    with pytest.raises(UserError, match=match):
        sample(three_modes().denoise, start(2), karras(3, 0.1, HIGH), noise=noise)


@pytest.mark.parametrize(
    ("low", "high", "steps", "times"),
    [(0.0, 1.0, 3, 1), (1.0, 1.0, 3, 1), (0.1, math.inf, 3, 1), (0.1, 1.0, 0, 1), (0.1, 1.0, 3, 0)],
)
def test_restart_intervals_that_make_no_sense_are_refused(low, high, steps, times):
    with pytest.raises(UserError, match="restart interval"):
        RestartInterval(low, high, steps, times)


NOT_DESCENDING = (
    *([1.0], [0.0, 1.0], [2.0, 1.0, 1.0]),
    *([1.0, -0.5], [math.inf, 1.0], [math.nan, 0.0]),
)


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("sigmas", NOT_DESCENDING)
def test_grids_that_do_not_descend_are_refused(name, sigmas):
    noise = NoiseStream([0, 1], (1, 1, 2))
    with pytest.raises(UserError, match="descending"):
        SAMPLERS[name].function(three_modes().denoise, start(2), torch.tensor(sigmas), noise=noise)


@pytest.mark.parametrize("sigmas", NOT_DESCENDING)
def test_inversion_refuses_them_too(sigmas):
    with pytest.raises(UserError, match="descending"):
        invert_ddim(three_modes().denoise, start(2), torch.tensor(sigmas))
