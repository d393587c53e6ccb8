"""The coefficients against the definitions, and the denoiser against the exact answer."""

import pytest
import torch
from torch import nn

from shared.conditioning import Conditioning, concatenate
from shared.denoiser import Denoiser
from shared.errors import UserError
from shared.parameterization import eps, parameterization_from_config, v, x0
from shared.samplers import sample_euler
from shared.schedules import NoiseSchedule, karras, linear_betas
from tests.analytic import AnalyticNetwork, all_kinds, three_modes

SCHEDULE = NoiseSchedule.from_betas(linear_betas())
KINDS = all_kinds(SCHEDULE)
NOTHING = Conditioning()


@pytest.fixture
def state():
    """x0 and noise (b 1 1 2) and sigma (b,) over the whole trained range, float64."""
    generator = torch.Generator().manual_seed(0)
    sigma = torch.logspace(-1.99, 2.19, 40, dtype=torch.float64)
    x0, noise = torch.randn(2, 40, 1, 1, 2, generator=generator, dtype=torch.float64)
    return x0, noise, sigma


@pytest.mark.parametrize("name", KINDS)
def test_coefficients_follow_from_the_definition(name, state):
    x0, noise, sigma = state
    kind, levels = KINDS[name], sigma[:, None, None, None]
    c_skip, c_out, c_in, c_noise = kind.parameterization(sigma)
    x = x0 + levels * noise

    given, answer = kind.state(x0, noise, levels), kind.answer(x0, noise, levels)
    per_sample = (slice(None), None, None, None)
    torch.testing.assert_close(c_in[per_sample] * x, given, atol=1e-12, rtol=1e-12)
    torch.testing.assert_close(c_skip[per_sample] * x + c_out[per_sample] * answer, x0)
    torch.testing.assert_close(kind.sigma(c_noise), sigma)


@pytest.mark.parametrize("name", KINDS)
def test_denoiser_of_a_perfect_network_is_exact(name, state):
    x0, noise, sigma = state
    mixture = three_modes()
    x = x0 + sigma[:, None, None, None] * noise
    denoiser = Denoiser(AnalyticNetwork(mixture, KINDS[name]), KINDS[name].parameterization)
    exact = mixture.denoise(x, sigma)
    torch.testing.assert_close(denoiser(x, sigma, NOTHING), exact, atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize("dtype, tolerance", [(torch.float32, 1e-5), (torch.float64, 1e-10)])
def test_the_five_give_the_same_trajectory(dtype, tolerance):
    mixture = three_modes()
    sigmas = karras(20, SCHEDULE.sigma_min, SCHEDULE.sigma_max)
    x = sigmas[0] * torch.randn(64, 1, 1, 2, generator=torch.Generator().manual_seed(1))
    paths = {}
    for name, kind in {**KINDS, "exact": None}.items():
        steps = paths[name] = []
        if kind is None:
            denoise = mixture.denoise
        else:
            denoiser = Denoiser(AnalyticNetwork(mixture, kind), kind.parameterization)
            denoise = lambda x, sigma, denoiser=denoiser: denoiser(x, sigma, NOTHING)  # noqa: E731
        final = sample_euler(
            denoise,
            x.to(dtype),
            sigmas,
            # States shrink from 157 to 1: compare them at the scale of their noise level.
            callback=lambda step, x, sigma, _, steps=steps: steps.append(x / max(sigma, 1)),
        )
        steps.append(final)
        assert final.dtype == dtype
    for name in KINDS:
        for mine, exact in zip(paths[name], paths["exact"], strict=True):
            assert (mine - exact).abs().max() <= tolerance, name


@pytest.mark.parametrize("name", KINDS)
def test_target_is_the_definition_and_the_loss_is_flat_in_it(name, state):
    x0, noise, sigma = (tensor.float() for tensor in state)
    kind, levels = KINDS[name], sigma[:, None, None, None]

    class Zero(nn.Module):
        def forward(self, x, c_noise, cond):
            return torch.zeros_like(x)

    denoiser = Denoiser(Zero(), kind.parameterization)
    answer = kind.answer(*(tensor.double() for tensor in (x0, noise, levels))).float()
    torch.testing.assert_close(denoiser.target(x0, noise, sigma), answer, atol=2e-4, rtol=2e-4)
    loss = denoiser.loss(x0, noise, sigma, NOTHING)
    assert loss.shape == sigma.shape
    torch.testing.assert_close(loss, answer.square().mean((1, 2, 3)), atol=1e-3, rtol=1e-3)
    weights = torch.arange(float(x0.shape[1]))
    loss = denoiser.loss(x0, noise, sigma, NOTHING, weights)
    weighted = (answer.square().mean((2, 3)) * weights).mean(1)
    torch.testing.assert_close(loss, weighted, atol=1e-3, rtol=1e-3)


def test_eps_target_is_the_noise_exactly(state):
    x0, noise, sigma = (tensor.float() for tensor in state)
    denoiser = Denoiser(nn.Identity(), eps(SCHEDULE))
    torch.testing.assert_close(denoiser.target(x0, noise, sigma), noise, atol=0, rtol=2e-7)


def test_a_perfect_network_has_the_least_loss():
    mixture, kind = three_modes(), KINDS["v"]
    network = AnalyticNetwork(mixture, kind)
    generator = torch.Generator().manual_seed(2)
    component = torch.multinomial(mixture.weights, 4000, replacement=True, generator=generator)
    unit = torch.randn(4000, 2, generator=generator, dtype=torch.float64)
    x0 = (mixture.means[component] + mixture.stds[component, None] * unit)[:, None, None]
    noise = torch.randn(x0.shape, generator=generator, dtype=torch.float64)
    sigma = torch.full((4000,), 0.8).double()

    class Scaled(nn.Module):
        def __init__(self, factor):
            super().__init__()
            self.factor = factor

        def forward(self, x, c_noise, cond):
            return self.factor * network(x, c_noise, cond)

    least, *others = (
        Denoiser(Scaled(factor), kind.parameterization).loss(x0, noise, sigma, NOTHING).mean()
        for factor in (1.0, 0.8, 1.2)
    )
    assert least < min(others)


def test_the_network_computes_in_its_own_dtype_and_time_keeps_its_digits():
    seen = {}

    class Spy(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones((), dtype=torch.bfloat16))

        def forward(self, x, c_noise, cond):
            seen.update(x=x.dtype, context=cond.context.dtype, mask=cond.context_mask.dtype)
            seen["t"] = c_noise.tolist()
            return x * self.weight

    cond = Conditioning(context=torch.ones(2, 3, 4), context_mask=torch.ones(2, 3).bool())
    sigma = SCHEDULE.sigmas[[999, 501]].float()
    denoised = Denoiser(Spy(), v(SCHEDULE))(torch.ones(2, 1, 2, 2), sigma, cond)
    assert denoised.dtype == torch.float32
    assert seen == {
        "x": torch.bfloat16,
        "context": torch.bfloat16,
        "mask": torch.bool,
        "t": [999.0, 501.0],
    }


def test_parameterization_from_config():
    sigma = torch.tensor([0.5, 7.0])
    for name, kind in {"epsilon": eps, "v_prediction": v, "sample": x0}.items():
        read = parameterization_from_config({"prediction_type": name}, SCHEDULE)(sigma)
        assert all(map(torch.equal, read, kind(SCHEDULE)(sigma)))
    assert torch.equal(parameterization_from_config({}, SCHEDULE)(sigma).c_skip, torch.ones(2))
    with pytest.raises(UserError, match=r"'v-prediction'.*did you mean 'v_prediction'"):
        parameterization_from_config({"prediction_type": "v-prediction"}, SCHEDULE)


def test_the_score_is_the_gradient_of_the_log_density(state):
    x0, noise, sigma = state
    mixture = three_modes()
    x = (x0 + sigma[:, None, None, None] * noise).requires_grad_()
    (gradient,) = torch.autograd.grad(mixture.log_density(x, sigma).sum(), x)
    torch.testing.assert_close(mixture.score(x, sigma), gradient, atol=1e-8, rtol=1e-8)


def test_conditioning_selects_and_joins_along_the_batch():
    cond = Conditioning(context=torch.arange(12.0).reshape(3, 2, 2), vector=torch.zeros(3, 5))
    joined = concatenate([cond[:1], cond[torch.tensor([2, 0])]])
    assert joined.context is not None and joined.vector is not None and cond.context is not None
    assert torch.equal(joined.context, cond.context[[0, 2, 0]])
    assert joined.vector.shape == (3, 5) and joined.concat is None
    with pytest.raises(TypeError, match="cond\\[i : i \\+ 1\\]"):
        cond[0]  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="vector"):
        concatenate([cond, Conditioning(context=cond.context)])
