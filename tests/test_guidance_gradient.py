"""Guidance gradients: the gradient itself, the papers' steps, what is off, what is refused."""

import math
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from shared.conditioning import Conditioning
from shared.denoiser import Denoiser
from shared.errors import UserError
from shared.guidance import (
    Loss,
    average_pool,
    classifier,
    clipped_step,
    compose,
    ddim_step,
    ddpm_step,
    even_step,
    gradient,
    known_region,
    label_log_prob,
    normalised_step,
    plain,
    residual_norm,
    score_step,
    step_range,
)
from shared.parameterization import eps, v
from shared.samplers import sample_ddim, sample_ddpm, sample_euler
from shared.schedules import NoiseSchedule, karras, linear_betas
from shared.unet import UNet
from tests.analytic import GaussianMixture, Measured, three_modes
from tests.tiny import UNET

SCHEDULE = NoiseSchedule.from_betas(linear_betas())
MIXTURE = three_modes()
SIGMAS = karras(8, 0.05, 10.0).double()
TARGET = torch.tensor([0.3, -0.9]).double().view(1, 1, 1, 2)


def states(n: int = 5) -> tuple[Tensor, Tensor]:
    """x (n 1 1 2) and sigma (n,), levels of the grid."""
    generator = torch.Generator().manual_seed(0)
    sigma = SIGMAS[torch.arange(n) % 8]
    return sigma[:, None, None, None] * torch.randn(
        n, 1, 1, 2, generator=generator, dtype=torch.float64
    ), sigma


def square(denoised: Tensor) -> Tensor:
    return (denoised - TARGET).square().flatten(1).sum(1)


def wave(denoised: Tensor) -> Tensor:
    return denoised.flatten(1).sin().prod(1)


LOSSES = [Loss(square, 0.7), Loss(wave, -2.0)]


def raw(gradient: Tensor, sigma: Tensor) -> Tensor:
    """The step that shows the gradient."""
    return -gradient


def total(x: Tensor, sigma: Tensor, losses=LOSSES) -> Tensor:
    denoised = MIXTURE.denoise(x, sigma)
    return torch.stack([loss.weight * loss.function(denoised) for loss in losses]).sum(0)


def slope(x: Tensor, sigma: Tensor, losses=LOSSES) -> Tensor:
    """The same gradient by central differences through the denoiser."""
    found = torch.zeros_like(x)
    for i in range(2):
        h = torch.zeros_like(x)
        h[..., i] = 1e-5
        found[..., i] = ((total(x + h, sigma, losses) - total(x - h, sigma, losses)) / 2e-5)[
            :, None, None
        ]
    return found


def test_the_gradient_is_finite_differences_through_the_denoiser():
    x, sigma = states()
    denoised = MIXTURE.denoise(x, sigma)
    guided = gradient(MIXTURE.denoise, LOSSES, raw)(x, sigma)
    torch.testing.assert_close(denoised - guided, slope(x, sigma), rtol=1e-6, atol=1e-9)


def test_by_the_estimate_alone_it_is_the_loss_s_own_slope():
    x, sigma = states()
    denoised = MIXTURE.denoise(x, sigma)
    losses = [Loss(square, 0.7)]
    with torch.no_grad():
        guided = gradient(torch.no_grad()(MIXTURE.denoise), losses, raw, through_denoiser=False)(
            x, sigma
        )
    torch.testing.assert_close(denoised - guided, 1.4 * (denoised - TARGET))


def test_a_network_is_differentiated_whatever_mode_the_sampler_runs_in():
    torch.manual_seed(0)
    denoiser = Denoiser(UNet.from_config(UNET).eval(), v(SCHEDULE))
    cond = Conditioning(context=torch.randn(2, 5, 16))
    x, sigma = torch.randn(2, 4, 8, 8), torch.tensor([0.5, 4.0])
    loss = Loss(lambda denoised: (denoised - 1).square().mean((1, 2, 3)))
    guided = gradient(plain(denoiser, cond), [loss], score_step(3.0))
    with torch.no_grad():
        plainly = guided(x, sigma)
    with torch.inference_mode():
        inferred = guided(x.clone(), sigma.clone())
    torch.testing.assert_close(plainly, inferred)
    assert not plainly.requires_grad
    assert all(parameter.grad is None for parameter in denoiser.parameters())
    start = x.clone().requires_grad_()
    loss.function(denoiser(start, sigma, cond)).sum().backward()
    assert start.grad is not None
    expected = denoiser(x, sigma, cond) - 3 * sigma.square()[:, None, None, None] * start.grad
    torch.testing.assert_close(plainly, expected, rtol=1e-4, atol=1e-5)


def test_nothing_to_follow_changes_nothing():
    denoise = MIXTURE.denoise
    assert gradient(denoise, [], raw) is denoise
    assert gradient(denoise, [Loss(square, 0.0), Loss(wave, 0.0)], raw) is denoise
    assert classifier(denoise, MIXTURE.log_density, 0.0) is denoise
    x, sigma = states()
    for step in (score_step(0.0), normalised_step(0.0), clipped_step(score_step(1.0), 0.0)):
        assert torch.equal(gradient(denoise, LOSSES, step)(x, sigma), denoise(x, sigma))
    elsewhere = [Loss(square, sigma_range=(20.0, 30.0))]
    assert torch.equal(gradient(denoise, elsewhere, raw)(x, sigma), denoise(x, sigma))


def test_spans_choose_steps_and_losses_add_up():
    x, sigma = states(8)  # one sample a step of the grid
    first = Loss(square, 0.5, step_range(SIGMAS, 2, 5))
    second = Loss(wave, 1.5, step_range(SIGMAS, 4, 8))
    denoised = MIXTURE.denoise(x, sigma)
    move = denoised - gradient(MIXTURE.denoise, [first, second], raw)(x, sigma)
    inside = torch.zeros(2, 8).double()
    inside[0, 2:5] = inside[1, 4:8] = 1
    parts = [slope(x, sigma, [loss]) for loss in (first, second)]
    expected = sum(
        chosen[:, None, None, None] * part for chosen, part in zip(inside, parts, strict=True)
    )
    torch.testing.assert_close(move, expected, rtol=1e-5, atol=1e-8)
    assert torch.equal(move[:2], torch.zeros_like(move[:2]))


def test_a_sample_does_not_depend_on_its_batch():
    x, sigma = states()
    for step in (score_step(0.4), normalised_step(0.1), clipped_step(score_step(9.0), 0.2)):
        guided = gradient(MIXTURE.denoise, LOSSES, step)
        together = guided(x, sigma)
        alone = torch.cat([guided(x[i : i + 1], sigma[i : i + 1]) for i in range(5)])
        torch.testing.assert_close(together, alone, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("form", ["ddpm", "ddim"])
def test_the_paper_s_two_forms_as_loops_of_variance_preserving_states(form, eta):
    """DDPM: x moves by -xi grad after the step. DDIM: the noise does, x0 as it was."""
    xi, losses = 0.05, [Loss(square, 0.7)]
    start = 10 * torch.randn(6, 1, 1, 2, generator=torch.Generator().manual_seed(4)).double()
    draws = torch.randn(8, 6, 1, 1, 2, generator=torch.Generator().manual_seed(5)).double()
    step = {"ddpm": ddpm_step, "ddim": ddim_step}[form](xi, SIGMAS, eta)
    denoise = gradient(MIXTURE.denoise, losses, step)
    mine = sample_ddim(denoise, start, SIGMAS, noise=lambda k: draws[k], eta=eta)

    alphas = (1 / (1 + SIGMAS**2)).tolist()
    state = start * alphas[0] ** 0.5
    for k in range(8):
        alpha, alpha_next = alphas[k], alphas[k + 1]
        level = SIGMAS[k].expand(6)
        x = (state / alpha**0.5).requires_grad_()
        clean = MIXTURE.denoise(x, level)
        (by_x,) = torch.autograd.grad(0.7 * square(clean).sum(), x)
        by_state = by_x / alpha**0.5
        clean = clean.detach()
        noise = (state - alpha**0.5 * clean) / (1 - alpha) ** 0.5
        if form == "ddim":
            noise = noise - xi * (1 - alpha) ** 0.5 * by_state
        fresh = eta * math.sqrt((1 - alpha_next) / (1 - alpha) * (1 - alpha / alpha_next))
        direction = math.sqrt(max(1 - alpha_next - fresh**2, 0.0)) * noise
        state = alpha_next**0.5 * clean + direction + fresh * draws[k]
        if form == "ddpm":
            state = state - xi * by_state
    torch.testing.assert_close(mine, state, rtol=1e-9, atol=1e-9)


def test_the_score_step_is_the_ddim_form_with_x0_anew_from_the_moved_noise():
    x, sigma = states()
    level = sigma[:, None, None, None]
    noise = (x - MIXTURE.denoise(x, sigma)) / level + 0.3 * level * slope(x, sigma)
    guided = gradient(MIXTURE.denoise, LOSSES, score_step(0.3))(x, sigma)
    torch.testing.assert_close(guided, x - level * noise, rtol=1e-5, atol=1e-7)


def test_dps_is_the_ddpm_step_on_the_residual_s_norm():
    """Algorithm 1 of DPS in variance-preserving states, zeta = zeta' / |y - A x0|."""
    zeta, pool = 0.2, average_pool(1, 2)
    y = torch.tensor([0.4]).double().view(1, 1, 1, 1)
    start = 10 * torch.randn(6, 1, 1, 2, generator=torch.Generator().manual_seed(4)).double()
    draws = torch.randn(8, 6, 1, 1, 2, generator=torch.Generator().manual_seed(5)).double()
    losses = [Loss(residual_norm(pool, y))]
    denoise = gradient(MIXTURE.denoise, losses, ddpm_step(2 * zeta, SIGMAS))
    mine = sample_ddpm(denoise, start, SIGMAS, noise=lambda k: draws[k])
    alphas = (1 / (1 + SIGMAS**2)).tolist()
    state = start * alphas[0] ** 0.5
    for k in range(8):
        before, alpha, beta = alphas[k + 1], alphas[k], 1 - alphas[k] / alphas[k + 1]
        state = state.requires_grad_()
        clean = MIXTURE.denoise(state / alpha**0.5, SIGMAS[k].expand(6))
        residual = y - clean.mean(-1, keepdim=True)
        (slope,) = torch.autograd.grad(residual.square().sum(), state)
        state, clean, residual = state.detach(), clean.detach(), residual.detach()
        mean = (1 - beta) ** 0.5 * (1 - before) * state + before**0.5 * beta * clean
        std = (beta * (1 - before) / (1 - alpha)) ** 0.5
        state = mean / (1 - alpha) + std * draws[k] - zeta / residual.abs() * slope
    torch.testing.assert_close(mine, state, rtol=1e-9, atol=1e-9)


def test_the_normalised_step_moves_by_xi_noise_levels_however_steep_the_loss():
    x, sigma = states()
    denoised = MIXTURE.denoise(x, sigma)
    for weight in (1e-30, 1.0, 1e30):
        losses = [Loss(square, weight)]
        move = gradient(MIXTURE.denoise, losses, normalised_step(0.2))(x, sigma) - denoised
        torch.testing.assert_close(move.square().mean((1, 2, 3)).sqrt(), 0.2 * sigma)
        against = -slope(x, sigma, [Loss(square)])
        cosine = nn.functional.cosine_similarity(move.flatten(1), against.flatten(1))
        torch.testing.assert_close(cosine, torch.ones(5).double())
    score = -0.2 * slope(x, sigma)  # CQTdiff: the score of the likelihood, N = 2
    norm = slope(x, sigma).flatten(1).norm(dim=1)
    expected = score * (2**0.5 / (norm * sigma) * sigma**2)[:, None, None, None]
    move = gradient(MIXTURE.denoise, LOSSES, normalised_step(0.2))(x, sigma) - denoised
    torch.testing.assert_close(move, expected, rtol=1e-5, atol=1e-8)


def test_clipping_shortens_only_what_is_too_long():
    x, sigma = states()
    denoised = MIXTURE.denoise(x, sigma)
    move = gradient(MIXTURE.denoise, LOSSES, score_step(0.3))(x, sigma) - denoised
    most = 0.1
    clipped = gradient(MIXTURE.denoise, LOSSES, clipped_step(score_step(0.3), most))(x, sigma)
    size = move.square().mean((1, 2, 3)).sqrt() / sigma
    assert (size > most).any() and (size < most).any()
    expected = move * (most / size).clamp(max=1)[:, None, None, None]
    torch.testing.assert_close(clipped - denoised, expected)


def test_guided_samples_have_a_lower_loss_with_every_step():
    start = 10 * torch.randn(64, 1, 1, 2, generator=torch.Generator().manual_seed(1)).double()
    loss = Loss(square)
    free = square(sample_euler(MIXTURE.denoise, start, SIGMAS)).mean()
    for step in (
        score_step(0.5),
        normalised_step(0.2),
        ddpm_step(0.05, SIGMAS, eta=0.0),
        ddim_step(0.3, SIGMAS),
    ):
        guided = sample_euler(gradient(MIXTURE.denoise, [loss], step), start, SIGMAS)
        assert square(guided).mean() < 0.8 * free


def test_composes_and_carries_outer_gradients():
    x, sigma = states()
    mask = torch.tensor([1.0, 0.0]).double().view(1, 1, 1, 2)
    replace = partial(known_region, known=TARGET, mask=mask)
    steer = partial(gradient, losses=LOSSES, step=score_step(0.1))
    measured = Measured(MIXTURE, TARGET[0, 0, 0], 1.0, 0.5)
    push = partial(classifier, log_prob=measured.log_likelihood)
    composed = compose(MIXTURE.denoise, steer, push, replace, steer)(x, sigma)
    assert torch.equal(composed, steer(replace(push(steer(MIXTURE.denoise))))(x, sigma))
    last = compose(MIXTURE.denoise, steer, push, steer, replace)(x, sigma)
    assert not torch.equal(composed, last)
    assert torch.equal(last[..., 0], TARGET[..., 0].expand(5, 1, 1))
    # The inner move is a constant for the outer gradient.
    inner = MIXTURE.denoise(x, sigma)
    held = steer(MIXTURE.denoise)(x, sigma) - inner
    expected = steer(lambda x, sigma: MIXTURE.denoise(x, sigma) + held)(x, sigma)
    torch.testing.assert_close(compose(MIXTURE.denoise, steer, steer)(x, sigma), expected)


def test_a_classifier_of_labels_gives_the_label_s_own_denoiser():
    """The exact posterior over components, read like a network; labels differ in the batch."""

    def logits(state: Tensor, c_noise: Tensor) -> Tensor:
        sigma = SCHEDULE.t_to_sigma(c_noise)
        x = state * (1 + sigma.square()).sqrt()[:, None, None, None]
        variance = MIXTURE.stds.square() + sigma.square()[:, None]
        distance = (x.flatten(1)[:, None] - MIXTURE.means).square().sum(-1)
        return MIXTURE.weights.log() - variance.log() - distance / (2 * variance)

    x, sigma = states(6)
    labels = torch.tensor([0, 1, 2, 2, 1, 0])
    log_prob = label_log_prob(logits, labels, eps(SCHEDULE))
    guided = classifier(MIXTURE.denoise, log_prob)(x, sigma)
    for i, label in enumerate(labels):
        one = slice(label, label + 1)
        alone = GaussianMixture(torch.ones(1).double(), MIXTURE.means[one], MIXTURE.stds[one])
        expected = alone.denoise(x[i : i + 1], sigma[i : i + 1])
        torch.testing.assert_close(guided[i : i + 1], expected, rtol=1e-7, atol=1e-7)
    ranged = classifier(MIXTURE.denoise, log_prob, 1.0, (0.0, 0.01))(x, sigma)
    assert torch.equal(ranged, MIXTURE.denoise(x, sigma))
    with torch.inference_mode():
        torch.testing.assert_close(
            classifier(MIXTURE.denoise, log_prob)(x.clone(), sigma.clone()), guided
        )


def test_says_what_is_wrong():
    x, sigma = states()
    denoise = MIXTURE.denoise
    with pytest.raises(UserError, match=r"one number a sample \(5,\), not \(\)"):
        gradient(denoise, [Loss(lambda denoised: denoised.sum())], raw)(x, sigma)
    for blind in (lambda d: d.detach().sum((1, 2, 3)), lambda d: torch.ones(5, requires_grad=True)):
        with pytest.raises(UserError, match="guidance loss does not depend"):
            gradient(denoise, [Loss(blind)], raw)(x, sigma)
    with pytest.raises(UserError, match=r"under torch\.no_grad"):
        gradient(torch.no_grad()(denoise), LOSSES, raw)(x, sigma)
    with pytest.raises(UserError, match="0 <= low < high"):
        Loss(square, sigma_range=(1.0, 1.0))
    with pytest.raises(UserError, match=r"within 0 \.\. 8, not 3, 9"):
        step_range(SIGMAS, 3, 9)
    for make in (score_step, normalised_step, partial(ddpm_step, sigmas=SIGMAS)):
        with pytest.raises(UserError, match="xi of a guidance step must be a number from 0"):
            make(float("nan"))
    with pytest.raises(UserError, match="most of a guidance step"):
        clipped_step(score_step(1.0), -1.0)
    with pytest.raises(UserError, match="at least two noise levels"):
        ddpm_step(1.0, SIGMAS[:1])


def test_an_even_step_bounds_each_place_and_leaves_the_others() -> None:
    slope = torch.full((2, 3, 4, 5), 0.1)
    slope[0, :, 1, 2] = torch.tensor([30.0, -40.0, 0.0])
    sigma = torch.tensor([2.0, 0.5])
    plain, even = normalised_step(0.1), even_step(normalised_step(0.1), 0.2)
    before, after = plain(slope, sigma), even(slope, sigma)
    assert torch.equal(after[1], before[1])  # evenly spread: nothing is too large
    elsewhere = torch.ones(4, 5, dtype=torch.bool)
    elsewhere[1, 2] = False
    assert torch.equal(after[0][:, elsewhere], before[0][:, elsewhere])
    place = after[0, :, 1, 2]
    assert place.square().mean().sqrt().item() == pytest.approx(0.2 * 2)
    assert torch.allclose(place / place.norm(), before[0, :, 1, 2] / before[0, :, 1, 2].norm())
    with pytest.raises(UserError):
        even_step(plain, -1.0)
