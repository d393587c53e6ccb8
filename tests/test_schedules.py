"""Schedules and sigma grids, against diffusers and against their definitions."""

import numpy as np
import pytest
import torch
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from diffusers.schedulers.scheduling_euler_discrete import EulerDiscreteScheduler

from shared.errors import UserError
from shared.schedules import (
    BETA_SCHEDULES,
    NOISY_ENOUGH,
    NoiseSchedule,
    cosine_betas,
    exponential,
    karras,
    linear_betas,
    make_sigmas,
    schedule_from_config,
    trained,
)

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

SCHEDULE = NoiseSchedule.from_betas(linear_betas())


@pytest.mark.parametrize("name", BETA_SCHEDULES)
@pytest.mark.parametrize("n, ends", [(1000, (1e-4, 0.02)), (300, (0.00085, 0.012))])
def test_betas_are_those_of_diffusers(name, n, ends):
    config = {"num_train_timesteps": n, "beta_start": ends[0], "beta_end": ends[1]}
    theirs = DDPMScheduler(beta_schedule=name, **config)
    ours = BETA_SCHEDULES[name](n, *ends)
    # Theirs are computed in float32. 2e-7 is its rounding at 1, which 1 - beta meets in "cosine".
    torch.testing.assert_close(ours.float(), theirs.betas, rtol=2e-6, atol=2e-7)

    read = schedule_from_config({"beta_schedule": name, **config})
    assert torch.equal(read.alphas_cumprod, NoiseSchedule.from_betas(ours).alphas_cumprod)
    # A float32 product of n factors loses up to n roundings.
    torch.testing.assert_close(
        read.alphas_cumprod.float(), theirs.alphas_cumprod, rtol=n * 6e-8, atol=1e-9
    )


def test_trained_betas_are_read_from_the_config():
    read = schedule_from_config({"trained_betas": [0.1, 0.2], "beta_schedule": "linear"})
    torch.testing.assert_close(read.alphas_cumprod, torch.tensor([0.9, 0.72]).double())


def test_zero_terminal_snr_is_that_of_diffusers():
    config = {"beta_schedule": "scaled_linear", "rescale_betas_zero_snr": True}
    theirs = EulerDiscreteScheduler(**config).sigmas[:-1].flip(0)
    ours = schedule_from_config(config).sigmas
    assert ours[-1] == pytest.approx(4096, rel=1e-6)
    # Their 1 - alphas_cumprod has few digits left at the clean end, as has the last-but-one.
    torch.testing.assert_close(ours[20:-2].float(), theirs[20:-2], rtol=1e-3, atol=0)


@pytest.mark.parametrize(
    "config, message",
    [
        ({"beta_schedule": "liner"}, "unknown beta_schedule 'liner'.*did you mean 'linear'"),
        ({"beta_end": 1.5}, "between 0 and 1"),
        ({"beta_start": "small"}, "not a noise schedule"),
        ({"num_train_timesteps": 1}, "at least 2"),
        ({"num_train_timesteps": -3}, "not a noise schedule"),
        ({"trained_betas": [[0.1, 0.2]]}, "at least 2"),
    ],
)
def test_bad_configs_are_refused_in_one_line(config, message):
    with pytest.raises(UserError, match=message) as caught:
        schedule_from_config(config)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", BETA_SCHEDULES)
def test_trained_levels_have_integer_times(name, dtype):
    schedule = schedule_from_config({"beta_schedule": name})
    sigmas, t = schedule.sigmas.to(dtype), torch.arange(1000).to(dtype)
    assert torch.equal(schedule.sigma_to_t(sigmas), t)
    assert torch.equal(schedule.t_to_sigma(t), sigmas)
    # Also one by one: a batch is vectorised in the middle and not at its end.
    for i in (0, 1, 500, 998, 999):
        assert schedule.sigma_to_t(sigmas[i : i + 1]).item() == i


def test_between_levels_time_is_linear_in_log_sigma_and_clamped_at_the_ends():
    log_sigmas = SCHEDULE.sigmas.log().numpy()
    sigma = torch.logspace(-3, 3, 500, dtype=torch.float64)
    expected = np.interp(sigma.log().numpy(), log_sigmas, np.arange(1000))
    t = SCHEDULE.sigma_to_t(sigma)
    torch.testing.assert_close(t, torch.from_numpy(expected), atol=1e-9, rtol=0)
    assert t[0] == 0 and t[-1] == 999
    inside = (sigma > SCHEDULE.sigma_min) & (sigma < SCHEDULE.sigma_max)
    torch.testing.assert_close(SCHEDULE.t_to_sigma(t)[inside], sigma[inside])
    single = SCHEDULE.sigma_to_t(sigma.float())
    torch.testing.assert_close(single.double(), t, atol=1e-4, rtol=0)
    assert SCHEDULE.sigma_to_t(torch.zeros(2, 3)).tolist() == [[0.0] * 3] * 2


@pytest.mark.parametrize("spacing", ["trailing", "leading", "linspace"])
@pytest.mark.parametrize("n", [1, 2, 7, 20, 25, 50, 99, 250, 1000])
def test_trained_grids_are_the_timesteps_of_diffusers(spacing, n):
    # A single "linspace" step of theirs starts at the clean end; ours at the noisy one.
    offset = 1 if spacing == "leading" and n < 1000 else 0
    theirs = DDIMScheduler(timestep_spacing=spacing, steps_offset=offset)
    theirs.set_timesteps(n)
    expected = [999] if (spacing, n) == ("linspace", 1) else theirs.timesteps.tolist()
    sigmas = trained(n, SCHEDULE, spacing, steps_offset=offset)
    assert SCHEDULE.sigma_to_t(sigmas[:-1]).tolist() == expected
    assert sigmas[-1] == 0


@pytest.mark.parametrize("name", ["karras", "exponential"])
def test_karras_and_exponential_grids_are_those_of_diffusers(name):
    theirs = EulerDiscreteScheduler(
        timestep_spacing="linspace",
        use_karras_sigmas=name == "karras",
        use_exponential_sigmas=name == "exponential",
    )
    theirs.set_timesteps(18)
    # Their ends come from float32 alphas_cumprod: 4 digits of 1 - alphas_cumprod at t = 0.
    torch.testing.assert_close(make_sigmas(name, 18, SCHEDULE), theirs.sigmas, rtol=5e-4, atol=0)


def test_karras_grid_is_the_formula():
    sigmas = karras(5, 0.002, 80.0, rho=7.0)
    i = np.arange(5)
    formula = (80 ** (1 / 7) + i / 4 * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7
    np.testing.assert_allclose(sigmas[:-1].numpy(), formula, rtol=1e-6)
    ratios = exponential(6, 0.1, 10.0)[:-1].log().diff()
    torch.testing.assert_close(ratios, ratios[:1].expand(5), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "call, message",
    [
        (
            lambda: make_sigmas("karas", 5, SCHEDULE),
            "'karas'.*did you mean 'karras'.*trained, karr",
        ),
        (lambda: make_sigmas("karras", 0, SCHEDULE), "between 1 and 10000, not 0"),
        (lambda: make_sigmas("exponential", 10_001, SCHEDULE), "between 1 and 10000, not 10001"),
        (lambda: make_sigmas("trained", 1001, SCHEDULE), "between 1 and 1000.*not 1001"),
        (lambda: make_sigmas("trained", -1, SCHEDULE), "not -1"),
        (lambda: trained(5, SCHEDULE, "trailling"), "did you mean 'trailing'"),
        (lambda: trained(1000, SCHEDULE, "leading", steps_offset=1), "leave the trained levels"),
        (lambda: karras(5, 0.0, 1.0), "0 < sigma_min <= sigma_max"),
        (lambda: exponential(5, 2.0, 1.0), "0 < sigma_min <= sigma_max"),
    ],
)
def test_impossible_grids_are_refused(call, message):
    with pytest.raises(UserError, match=message):
        call()


def test_grids_do_not_start_where_only_noise_is():
    schedule = NoiseSchedule.from_betas(cosine_betas(1000))
    assert schedule.sigma_max > 10_000
    for name in ("karras", "exponential"):
        assert make_sigmas(name, 20, schedule)[0] == NOISY_ENOUGH
