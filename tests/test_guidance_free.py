"""Guidance by two denoisers: rescale, CFG++, autoguidance, perturbed attention, composing."""

import math
from functools import partial

import pytest
import torch
from diffusers.guiders.guider_utils import rescale_noise_cfg
from diffusers.models.attention_processor import AttnProcessor2_0, PAGIdentitySelfAttnProcessor2_0
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import Tensor, nn

from shared.conditioning import Conditioning
from shared.denoiser import Denoiser
from shared.errors import UserError
from shared.guidance import (
    autoguidance,
    classifier_free,
    classifier_free_pp,
    compose,
    known_region,
    perturbed,
    perturbed_attention,
    plain,
)
from shared.parameterization import Parameterization, edm, eps, flow, v
from shared.samplers import sample_adaptive, sample_ddim, sample_ddpm, sample_euler
from shared.schedules import NoiseSchedule, karras, linear_betas
from shared.unet import UNet
from tests.analytic import GaussianMixture, single_gaussian, three_modes
from tests.tiny import UNET

SCHEDULE = NoiseSchedule.from_betas(linear_betas())
KINDS = {"eps": eps(SCHEDULE), "v": v(SCHEDULE), "flow": flow(), "edm": edm()}
SIGMA = torch.tensor([0.05, 1.0, 30.0])


class Network(nn.Module):
    """Looks at state, time and prompt."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(6, 6)

    def forward(self, x: Tensor, c_noise: Tensor, cond: Conditioning) -> Tensor:
        assert cond.vector is not None
        told = cond.vector[:, None, None] + c_noise[:, None, None, None] / 1000
        return torch.tanh(self.inner(x + told))


def make(kind: Parameterization) -> tuple[Denoiser, Tensor, Conditioning, Conditioning]:
    """A denoiser, x (3 2 4 6) at SIGMA, and two conditionings."""
    torch.manual_seed(0)
    denoiser = Denoiser(Network(), kind).requires_grad_(False)
    cond, uncond = torch.randn(2, 3, 6)
    x = torch.randn(3, 2, 4, 6) * SIGMA[:, None, None, None]
    return denoiser, x, Conditioning(vector=cond), Conditioning(vector=uncond)


@pytest.mark.parametrize("rescale", [0.3, 0.7, 1.0])
@pytest.mark.parametrize("kind", KINDS)
def test_rescale_is_the_reference_s_on_the_network_output(kind, rescale):
    denoiser, x, cond, uncond = make(KINDS[kind])
    with_cond, without = (denoiser.model_output(x, SIGMA, c) for c in (cond, uncond))
    output = rescale_noise_cfg(without + 6.0 * (with_cond - without), with_cond, rescale)
    c_skip, c_out, _, _ = (c[:, None, None, None] for c in KINDS[kind](SIGMA))
    guided = classifier_free(denoiser, cond, uncond, 6.0, rescale=rescale)(x, SIGMA)
    torch.testing.assert_close(guided, c_skip * x + c_out * output, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(guided, classifier_free(denoiser, cond, uncond, 6.0)(x, SIGMA))


def test_rescale_zero_and_scale_one_change_nothing():
    denoiser, x, cond, uncond = make(KINDS["v"])
    guided = classifier_free(denoiser, cond, uncond, 6.0, rescale=0.0)(x, SIGMA)
    assert torch.equal(guided, classifier_free(denoiser, cond, uncond, 6.0)(x, SIGMA))
    off = classifier_free(denoiser, cond, uncond, 1.0, rescale=0.7)(x, SIGMA)
    assert torch.equal(off, denoiser(x, SIGMA, cond))


def test_rescale_keeps_to_the_range():
    denoiser, x, cond, uncond = make(KINDS["eps"])
    rescaled = partial(classifier_free, denoiser, cond, uncond, 6.0, rescale=0.7)
    ranged = rescaled(sigma_range=(0.5, 2.0))(x, SIGMA)
    assert torch.equal(ranged[1], rescaled()(x, SIGMA)[1])
    assert torch.equal(ranged[[0, 2]], denoiser(x, SIGMA, cond)[[0, 2]])


@pytest.mark.parametrize("eta", [0.0, 0.6, 1.0])
@pytest.mark.parametrize("scale", [0.0, 0.6, 1.0])
def test_cfg_pp_is_the_paper_s_loop(scale, eta):
    """Algorithm 1 in variance-preserving states with noise estimates, as it stands in the paper."""
    denoiser, _, cond, uncond = make(KINDS["v"])
    sigmas = karras(12, 0.02, 20.0)
    x = 20.0 * torch.randn(3, 2, 4, 6, generator=torch.Generator().manual_seed(1))
    draws = torch.randn(12, 3, 2, 4, 6, generator=torch.Generator().manual_seed(2))
    denoise = classifier_free_pp(denoiser, cond, uncond, scale, sigmas, eta)
    mine = sample_ddim(denoise, x, sigmas, noise=lambda step: draws[step], eta=eta)

    alphas = (1 / (1 + sigmas.double() ** 2)).tolist()
    state = x.double() * alphas[0] ** 0.5
    for step in range(12):
        alpha, alpha_next = alphas[step], alphas[step + 1]
        level = sigmas[step].expand(3)
        as_here = (state / alpha**0.5).float()
        estimates = [
            (state - alpha**0.5 * denoiser(as_here, level, c).double()) / (1 - alpha) ** 0.5
            for c in (cond, uncond)
        ]
        guided = estimates[1] + scale * (estimates[0] - estimates[1])
        clean = (state - (1 - alpha) ** 0.5 * guided) / alpha**0.5
        fresh = eta * math.sqrt((1 - alpha_next) / (1 - alpha) * (1 - alpha / alpha_next))
        direction = math.sqrt(max(1 - alpha_next - fresh**2, 0.0)) * estimates[1]
        state = alpha_next**0.5 * clean + direction + fresh * draws[step]
    torch.testing.assert_close(mine.double(), state, rtol=1e-3, atol=1e-3)


def test_cfg_pp_with_scale_zero_is_unconditional_and_euler_sees_the_same_grid():
    denoiser, x, cond, uncond = make(KINDS["v"])
    sigmas = karras(6, 0.02, 20.0)
    zero = classifier_free_pp(denoiser, cond, uncond, 0.0, sigmas)
    torch.testing.assert_close(zero(x, SIGMA), denoiser(x, SIGMA, uncond))
    denoise = classifier_free_pp(denoiser, cond, uncond, 0.5, sigmas)
    torch.testing.assert_close(
        sample_euler(denoise, x, sigmas), sample_ddim(denoise, x, sigmas), rtol=1e-4, atol=1e-4
    )
    ddpm = classifier_free_pp(denoiser, cond, uncond, 0.5, sigmas, eta=1.0)
    noises = torch.randn(6, *x.shape)
    stochastic = [
        sample_ddpm(ddpm, x, sigmas, noise=lambda step: noises[step]),
        sample_ddim(ddpm, x, sigmas, noise=lambda step: noises[step], eta=1.0),
    ]
    torch.testing.assert_close(*stochastic, rtol=1e-4, atol=1e-4)


def test_autoguidance_is_the_extrapolation_and_scale_one_is_off():
    good, weak = three_modes().denoise, single_gaussian().denoise
    x, sigma = torch.randn(4, 1, 1, 2).double(), torch.tensor([0.1, 1.0, 2.0, 9.0]).double()
    guided = autoguidance(good, weak, 2.5)(x, sigma)
    torch.testing.assert_close(guided, 2.5 * good(x, sigma) - 1.5 * weak(x, sigma))
    assert autoguidance(good, weak, 1.0) is good
    assert torch.equal(autoguidance(good, good, 3.0)(x, sigma), good(x, sigma))
    ranged = autoguidance(good, weak, 2.5, (0.5, 2.0))(x, sigma)
    assert torch.equal(ranged[1:3], guided[1:3])
    assert torch.equal(ranged[[0, 3]], good(x, sigma)[[0, 3]])


def test_autoguidance_by_a_wider_gaussian_contracts_as_the_closed_solution_has_it():
    """D_w = w D - (w - 1) D_weak of two Gaussians around m is linear in x - m, and so the ODE

    d log(x - m) = w sigma / (s^2 + sigma^2) d sigma - (w - 1) sigma / (t^2 + sigma^2) d sigma
    """
    good = single_gaussian()
    w, s, t, high = 2.5, good.stds[0].item(), 1.5 * good.stds[0].item(), 20.0
    weak = replace_stds(good, t)
    mean = good.means[0].reshape(1, 1, 1, 2)
    x = mean + high * torch.randn(6, 1, 1, 2, generator=torch.Generator().manual_seed(0)).double()
    sigmas = torch.tensor([high, 1e-5, 0.0]).double()
    denoise = autoguidance(good.denoise, weak.denoise, w)
    x0 = sample_adaptive(denoise, x, sigmas, rtol=1e-8, atol=1e-8)
    share = (s**2 / (s**2 + high**2)) ** (w / 2) * ((t**2 + high**2) / t**2) ** ((w - 1) / 2)
    torch.testing.assert_close(x0, mean + share * (x - mean), rtol=1e-6, atol=1e-6)


def replace_stds(mixture: GaussianMixture, std: float) -> GaussianMixture:
    return GaussianMixture(mixture.weights, mixture.means, torch.full_like(mixture.stds, std))


DEEP = {
    **UNET,
    "down_block_types": ["CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
    "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D"],
}


@pytest.fixture(scope="module")
def unet_denoiser() -> Denoiser:
    torch.manual_seed(0)
    return Denoiser(UNet.from_config(DEEP).eval(), v(SCHEDULE)).requires_grad_(False)


@pytest.fixture
def picture() -> tuple[Tensor, Tensor, Conditioning, Conditioning]:
    """x (2 4 8 8), sigma (2,), two conditionings."""
    generator = torch.Generator().manual_seed(3)
    cond, uncond = torch.randn(2, 2, 5, 16, generator=generator)
    x = torch.randn(2, 4, 8, 8, generator=generator)
    return x, torch.tensor([0.7, 3.0]), Conditioning(context=cond), Conditioning(context=uncond)


@pytest.mark.parametrize(
    "blocks", [("mid_block",), ("up_blocks.0", "down_blocks.1.attentions.0"), ("mid_block",) * 2]
)
def test_perturbed_attention_is_the_reference_s(unet_denoiser, picture, blocks):
    x, sigma, cond, _ = picture
    weights = unet_denoiser.network.state_dict()
    config = {key: value for key, value in DEEP.items() if not key.startswith("_")}
    reference = UNet2DConditionModel(**config).eval().requires_grad_(False)
    reference.load_state_dict(weights)
    reference.set_attn_processor(
        {
            name: PAGIdentitySelfAttnProcessor2_0()
            if ".attn1." in name and any(name.startswith(f"{block}.") for block in blocks)
            else AttnProcessor2_0()
            for name in reference.attn_processors
        }
    )
    scalings = v(SCHEDULE)(sigma)
    scaled = x * scalings.c_in[:, None, None, None]
    output = reference(
        torch.cat([scaled, scaled]),
        torch.cat([scalings.c_noise] * 2),
        torch.cat([cond.context] * 2),  # type: ignore[list-item]
        return_dict=False,
    )[0].chunk(2)[1]
    c_skip, c_out = scalings.c_skip[:, None, None, None], scalings.c_out[:, None, None, None]
    expected = c_skip * x + c_out * output
    weak = perturbed(unet_denoiser, cond, blocks)(x, sigma)
    torch.testing.assert_close(weak, expected, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(weak, unet_denoiser(x, sigma, cond), rtol=1e-4, atol=1e-5)


def test_perturbing_leaves_the_network_alone_and_follows_its_weights(unet_denoiser, picture):
    x, sigma, cond, _ = picture
    before = unet_denoiser(x, sigma, cond)
    weak = perturbed(unet_denoiser, cond)
    first = weak(x, sigma)
    assert torch.equal(unet_denoiser(x, sigma, cond), before)
    bias = unet_denoiser.network.conv_out.bias
    bias += 1  # in place: both trees of modules hold this very tensor
    try:
        c_out = v(SCHEDULE)(sigma).c_out[:, None, None, None]
        torch.testing.assert_close(weak(x, sigma), first + c_out)
    finally:
        bias -= 1


def test_perturbed_attention_and_its_sum_with_classifier_free(unet_denoiser, picture):
    x, sigma, cond, uncond = picture
    d_cond, d_uncond = (unet_denoiser(x, sigma, c) for c in (cond, uncond))
    weak = perturbed(unet_denoiser, cond)(x, sigma)
    alone = perturbed_attention(plain(unet_denoiser, cond), unet_denoiser, cond, 4.0)(x, sigma)
    torch.testing.assert_close(alone, d_cond + 3 * (d_cond - weak), rtol=1e-4, atol=1e-4)
    base = classifier_free(unet_denoiser, cond, uncond, (5 + 3) / (1 + 3))
    both = perturbed_attention(base, unet_denoiser, cond, 4.0)(x, sigma)
    expected = d_uncond + 5 * (d_cond - d_uncond) + 3 * (d_cond - weak)
    torch.testing.assert_close(both, expected, rtol=1e-4, atol=1e-4)
    assert perturbed_attention(base, unet_denoiser, cond, 1.0) is base


def test_composing_is_applying_in_order_and_nothing_is_nothing():
    good, weak = three_modes().denoise, single_gaussian().denoise
    x, sigma = torch.randn(4, 1, 1, 2).double(), torch.full((4,), 0.8).double()
    mask = torch.tensor([1.0, 0.0]).double().view(1, 1, 1, 2)
    push = partial(autoguidance, weak=weak, scale=2.0)
    replace = partial(known_region, known=torch.ones(4, 1, 1, 2), mask=mask)
    composed = compose(good, push, replace)(x, sigma)
    assert torch.equal(composed, replace(push(good))(x, sigma))
    assert not torch.equal(composed, compose(good, replace, push)(x, sigma))
    assert compose(good) is good


def test_says_what_is_wrong(unet_denoiser):
    denoiser, _, cond, uncond = make(KINDS["v"])
    sigmas = karras(6, 0.02, 20.0)
    with pytest.raises(UserError, match=r"rescale must be between 0 and 1, not 1\.5"):
        classifier_free(denoiser, cond, uncond, 3.0, rescale=1.5)
    with pytest.raises(UserError, match=r"0 <= low < high, not 2\.0, 1\.0"):
        classifier_free(denoiser, cond, uncond, 3.0, sigma_range=(2.0, 1.0))
    with pytest.raises(UserError, match=r"CFG\+\+ must be between 0 and 1, not 7\.5"):
        classifier_free_pp(denoiser, cond, uncond, 7.5, sigmas)
    with pytest.raises(UserError, match="descending"):
        classifier_free_pp(denoiser, cond, uncond, 0.5, sigmas.flip(0))
    with pytest.raises(UserError, match="eta must be between 0 and 1, not 2"):
        classifier_free_pp(denoiser, cond, uncond, 0.5, sigmas, eta=2)
    with pytest.raises(UserError, match=r"no self-attention in block 'middle'.*mid_block"):
        perturbed(unet_denoiser, cond, ("middle",))
