"""Distillation's exact facts: targets, levels, the boundary, guidance told and not computed."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from shared import parameterization as kinds
from shared.conditioning import Conditioning
from shared.denoiser import Denoiser
from shared.distillation import (
    coarse_steps,
    consistency_distillation_loss,
    consistency_training_loss,
    ddim_step,
    doubling_pairs,
    easy_pairs,
    guided_loss,
    heun_step,
    progressive_loss,
    progressive_target,
    pseudo_huber,
    trajectory_loss,
    trajectory_target,
    walk,
)
from shared.distillation.student import guided_by
from shared.errors import UserError
from shared.guidance import classifier_free, with_scale
from shared.low_rank import LowRank, difference, make_low_rank, merged, plain_state
from shared.samplers import sample_ddim, sample_dpmpp_2m, sample_heun, sample_lcm
from shared.schedules import NoiseSchedule, cosine_betas, scaled_linear_betas, trained
from tests.analytic import gaussian_flow, single_gaussian, three_modes
from tests.diffusers_loops import (
    CONFIGS,
    Network,
    assert_agree,
    noise_of,
    ours,
    random_network,
    theirs,
    unit_noise,
    vp,
)

SCHEDULES = {
    "cosine": NoiseSchedule.from_betas(cosine_betas(1000)),
    "scaled linear": NoiseSchedule.from_betas(scaled_linear_betas(1000)),
}
MIXTURE = three_modes()


def states(n: int = 64, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """x0 and noise, (n 1 1 2) float64."""
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(2, n, 1, 1, 2, generator=generator, dtype=torch.float64))  # type: ignore[return-value]


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_consistency_function_is_identity_at_the_cleanest_level(prediction, schedule, dtype):
    config = {"prediction_type": prediction, "_class_name": "LCMScheduler"}
    parameterization = kinds.parameterization_from_config(config, schedule)
    cleanest = schedule.sigmas[:1].to(dtype)
    c_skip, c_out, _, _ = parameterization(cleanest)
    assert c_skip.item() == 1 and c_out.item() == 0
    torch.manual_seed(0)
    denoiser = Denoiser(Network().to(dtype), parameterization, schedule)
    x = torch.randn(2, 3, 8, 8, dtype=dtype)
    for share in (1.0, 0.5):
        assert torch.equal(denoiser(x, share * cleanest.expand(2), Conditioning()), x)
    # Elsewhere it is its base: a student that has its teacher's weights begins as its teacher.
    config["_class_name"] = "DDIMScheduler"
    base = Denoiser(
        denoiser.network, kinds.parameterization_from_config(config, schedule), schedule
    )
    for sigma in (schedule.sigmas[1], schedule.sigmas[400], schedule.sigmas[-1]):
        level = sigma.to(dtype).expand(2)
        mine, theirs_ = (d(x * sigma, level, Conditioning()) for d in (denoiser, base))
        assert (mine - theirs_).abs().max() <= 3e-3 * theirs_.abs().max()


@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
def test_between_the_first_levels_neither_the_state_nor_the_network_is_made_larger(schedule):
    sigma = schedule.t_to_sigma(torch.linspace(0, 3, 61))
    c_skip, c_out, _, _ = kinds.consistency(kinds.x0(schedule), schedule)(sigma)
    assert (c_skip + c_out - 1).abs().max() < 3e-3
    assert (c_skip.diff() <= 0).all() and (c_out.diff() >= 0).all()


@pytest.mark.parametrize("steps", [1, 4])
@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_diffusers_takes_the_same_consistency_steps(steps, config):
    diffusers = pytest.importorskip("diffusers")
    network = random_network()
    config = {**config, "timestep_spacing": "trailing"}
    denoise, schedule = ours(network, {**config, "_class_name": "LCMScheduler"})
    scheduler = diffusers.LCMScheduler(**config, original_inference_steps=1000, clip_sample=False)
    sigmas = trained(steps, schedule)
    x = unit_noise() * sigmas[0]
    generator = torch.Generator().manual_seed(5)
    reference = theirs(network, scheduler, steps, vp(x, sigmas[0]), generator=generator)
    assert_agree(sample_lcm(denoise, x, sigmas, noise=noise_of(5)), reference)


def test_steps_of_single_samples_are_the_samplers_own():
    x0, noise = states()
    for first, last in ((5.0, 2.0), (2.0, 0.0)):
        x, grid = x0 + first * noise, torch.tensor([first, last]).double()
        begin, end = (level.expand(len(x)) for level in grid)
        heun = heun_step(MIXTURE.denoise, x, begin, end)
        torch.testing.assert_close(heun, sample_heun(MIXTURE.denoise, x, grid))
        ddim = ddim_step(x, MIXTURE.denoise(x, begin), begin, end)
        torch.testing.assert_close(ddim, sample_ddim(MIXTURE.denoise, x, grid))


@pytest.mark.parametrize(("steps", "factor"), [(1, 2), (2, 2), (4, 2), (2, 8)])
def test_the_target_s_path_of_n_steps_is_the_teacher_s_of_2n(steps, factor):
    schedule = SCHEDULES["scaled linear"]
    grid = trained(factor * steps, schedule).double()

    def perfect(x, sigma):
        at = int((grid - sigma[0]).abs().argmin())
        return progressive_target(MIXTURE.denoise, x, grid[at : at + factor + 1].expand(len(x), -1))

    x = states()[1] * grid[0]
    there = sample_ddim(MIXTURE.denoise, x, grid)
    torch.testing.assert_close(sample_ddim(perfect, x, grid[::factor]), there, rtol=0, atol=1e-9)
    # The loss knows it, and knows another: the teacher itself takes shorter steps.
    x0, noise = states(seed=1)
    sigmas = coarse_steps(grid, torch.zeros(len(x0)), factor)
    assert progressive_loss(perfect, MIXTURE.denoise, x0, noise, sigmas).max() < 1e-20
    assert progressive_loss(MIXTURE.denoise, MIXTURE.denoise, x0, noise, sigmas).mean() > 1e-4


def test_every_step_of_the_student_is_drawn():
    grid = trained(8, SCHEDULES["cosine"])
    drawn = coarse_steps(grid, torch.arange(64) / 64)
    assert torch.equal(
        drawn.unique(dim=0).flip(0), torch.stack([grid[:-2:2], grid[1::2], grid[2::2]], 1)
    )
    assert torch.equal(coarse_steps(grid, torch.tensor([1 - 1e-9]))[0], grid[-3:])


def test_the_loss_of_a_network_that_predicts_v_is_that_of_its_output():
    schedule = SCHEDULES["scaled linear"]
    torch.manual_seed(0)
    denoiser = Denoiser(Network(), kinds.v(schedule), schedule)
    x0, noise = torch.randn(2, 6, 3, 8, 8)
    sigma = torch.tensor([0.1, 0.3, 1.0, 3.0, 8.0, 14.0])

    def learn(x, sigma):
        return denoiser(x, sigma, Conditioning())

    mine = guided_loss(learn, lambda x, sigma: x0, x0, noise, sigma[:, None])
    torch.testing.assert_close(mine, denoiser.loss(x0, noise, sigma, Conditioning()))


def test_consistency_losses_vanish_for_the_true_function_as_levels_draw_near():
    gaussian = single_gaussian()
    x0, noise = states(512)
    x0 = gaussian.means.reshape(1, 1, 1, 2) + gaussian.stds * x0

    def ends(x, sigma):
        return torch.stack(
            [gaussian_flow(gaussian, row[None], s, 0.0)[0] for row, s in zip(x, sigma, strict=True)]
        )

    def biased(x, sigma):
        return ends(x, sigma) * (1 + 0.1 * (sigma > 1))[:, None, None, None]

    def mean(loss, function, step):
        sigma = torch.full((len(x0),), 1.05).double()
        sigmas = torch.stack([sigma, sigma / step], 1)
        return loss(function, gaussian.denoise, x0, noise, sigmas).mean().item()

    coarse, fine = (mean(consistency_distillation_loss, ends, step) for step in (1.5, 1.05))
    assert fine < 0.05 * coarse < 1e-2  # Heun's error a step, of third order
    assert mean(consistency_distillation_loss, biased, 1.1) > 20 * fine
    # Far off, at the clean signal itself, the data tell what a denoiser learns.
    sigma, x = torch.full((len(x0),), 2.0).double(), x0 + 2 * noise
    sigmas = torch.stack([sigma, 0 * sigma], 1)
    torch.testing.assert_close(
        consistency_training_loss(ends, gaussian.denoise, x0, noise, sigmas),
        5**0.5 / 2 * pseudo_huber(ends(x, sigma) - x0),
    )
    # The network at the cleaner level is not taught.
    shift = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    sigmas = torch.tensor([[2.0, 1.0]]).double().expand(len(x0), 2)
    consistency_training_loss(
        lambda x, sigma: ends(x, sigma) + shift * (sigma < 1.5)[:, None, None, None],
        gaussian.denoise, x0, noise, sigmas,
    ).mean().backward()  # fmt: skip
    assert shift.grad is not None and shift.grad.item() == 0


def test_pseudo_huber_is_a_square_near_zero_and_an_absolute_value_far_off():
    error = torch.tensor([1e-6, 3.0, 0.0]).double()[:, None, None, None].expand(3, 2, 2, 2)
    near, far, none = pseudo_huber(error).tolist()
    assert near == pytest.approx(1e-12 / (2 * 0.00054), rel=1e-4)
    assert far == pytest.approx(3 - 0.00054, abs=1e-6) and none == 0


def test_easy_levels_begin_far_off_and_draw_nearer_by_half():
    schedule = SCHEDULES["cosine"]
    sigma = torch.tensor([0.01, 1.0, 50.0, schedule.sigma_max])
    first = easy_pairs(sigma, 0.0, schedule)[:, 1]
    # n(1) = 3.15 and more than 2: the clean signal itself; n(50) = 1: half.
    torch.testing.assert_close(first, torch.tensor([0.0, 0.0, 25.0, 160.0]))
    gaps = [1 - easy_pairs(sigma, stage / 8, schedule)[2, 1] / 50 for stage in range(8)]
    assert [round(gap.item(), 6) for gap in gaps] == [round(2.0**-k, 6) for k in range(1, 9)]
    last = easy_pairs(sigma, 0.999, schedule)
    n = 1 + 8 * torch.sigmoid(-sigma[1])
    assert last[1, 1].item() == pytest.approx(1 - n.item() / 256, rel=1e-6)


def test_doubling_levels_are_the_steps_of_karras_grids():
    schedule = SCHEDULES["scaled linear"]
    generator = torch.Generator().manual_seed(0)
    sigma = torch.rand(4000, generator=generator) * 1.2 * schedule.sigma_max
    for stage, count in enumerate((10, 20, 40)):
        pairs = doubling_pairs(sigma, stage / 3 + 0.01, schedule, stages=3)
        inside = (sigma >= schedule.sigma_min) & (sigma <= schedule.sigma_max)
        assert len(pairs[inside, 0].unique()) <= count
        assert (pairs[:, 0] >= sigma / 1.011).all() and (pairs[inside, 1] <= sigma[inside]).all()
        assert pairs[:, 1].min() == pytest.approx(schedule.sigma_min, rel=1e-5)
        # No step is so short that a loss divided by it would mean nothing.
        assert (1 - pairs[:, 1] / pairs[:, 0]).min() > 0.005
    # Much noisier than the grid: from there to its end.
    beyond = doubling_pairs(torch.tensor([20000.0]), 0.5, SCHEDULES["cosine"])[0]
    assert beyond[0] == 20000 and beyond[1].item() == pytest.approx(160, rel=1e-5)


def test_the_scale_is_told_as_diffusers_tells_it():
    diffusers = pytest.importorskip("diffusers")
    embed = diffusers.StableDiffusionPipeline.get_guidance_scale_embedding
    scales = torch.tensor([1.0, 2.5, 7.5])
    told = with_scale(Conditioning(context=torch.zeros(3, 1, 1)), scales, 32)
    reference = embed(SimpleNamespace(), scales - 1, embedding_dim=32)
    torch.testing.assert_close(told.vector, reference, atol=1e-3, rtol=0)  # of 6500 radians
    with pytest.raises(ValueError, match="context"):
        with_scale(Conditioning(), 1.0, 32)


class TakesScale(nn.Module):
    """A network that answers with what it was told."""

    guidance_dim = 8

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, x, c_noise, cond):
        self.calls += 1
        return cond.vector.sum(1)[:, None, None, None].expand_as(x)


def test_guidance_of_a_student_that_takes_the_scale_is_one_call():
    schedule = SCHEDULES["scaled linear"]
    denoiser = Denoiser(TakesScale(), kinds.x0(schedule), schedule)
    cond, uncond = (Conditioning(context=torch.full((2, 1, 1), value)) for value in (1.0, 0.0))
    x, sigma = torch.zeros(2, 1, 1, 2), torch.ones(2)
    denoised = classifier_free(denoiser, cond, uncond, 3.0)(x, sigma)
    told = with_scale(cond, 3.0, 8).vector
    assert told is not None and denoised[0, 0, 0, 0].item() == pytest.approx(told[0].sum().item())
    assert isinstance(denoiser.network, TakesScale) and denoiser.network.calls == 1
    assert not torch.equal(classifier_free(denoiser, cond, uncond, 1.0)(x, sigma), denoised)


def test_a_scale_of_each_sample_s_own_is_guidance_of_each():
    schedule = SCHEDULES["scaled linear"]

    class Context(nn.Module):
        def forward(self, x, c_noise, cond):
            return cond.context[:, :, :, None].expand_as(x) * c_noise[:, None, None, None]

    denoiser = Denoiser(Context(), kinds.v(schedule), schedule)
    cond, uncond = (Conditioning(context=torch.full((3, 1, 1), value)) for value in (1.0, 0.2))
    x, sigma = torch.randn(3, 1, 1, 2), torch.tensor([0.5, 2.0, 9.0])
    scales = torch.tensor([1.0, 2.0, 5.0])
    together = guided_by(denoiser, cond, uncond, scales)(x, sigma)
    for i, scale in enumerate(scales.tolist()):
        alone = classifier_free(denoiser, cond[i : i + 1], uncond[i : i + 1], scale)
        torch.testing.assert_close(together[i : i + 1], alone(x[i : i + 1], sigma[i : i + 1]))


def test_a_low_rank_difference_begins_as_nothing_and_ends_in_the_weights():
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.GroupNorm(2, 8), nn.Conv2d(8, 8, 1), nn.Flatten(),
        nn.Linear(32, 4),
    )  # fmt: skip
    before = {key: tensor.clone() for key, tensor in network.state_dict().items()}
    x = torch.randn(2, 3, 2, 2)
    expected = network(x)
    make_low_rank(network, 2, whole=("1.bias",))
    assert torch.equal(network(x), expected)
    trained_ = {name for name, p in network.named_parameters() if p.requires_grad}
    assert all("parametrizations" in name or name == "1.bias" for name in trained_)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, LowRank):
                module.up.normal_()
        dict(network.named_parameters())["1.bias"].add_(1)
    changed = network(x)
    assert (changed - expected).abs().max() > 0.1
    small = difference(network)
    assert small["unet.0.lora_A.weight"].shape == (2, 3, 3, 3)
    assert small["unet.0.lora_B.weight"].shape == (8, 2, 1, 1)
    state = merged(before, small)
    for key, tensor in plain_state(network).items():
        torch.testing.assert_close(state[key], tensor)
    plain = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.GroupNorm(2, 8), nn.Conv2d(8, 8, 1), nn.Flatten(),
        nn.Linear(32, 4),
    )  # fmt: skip
    plain.load_state_dict(state)
    torch.testing.assert_close(plain(x), changed)
    with pytest.raises(UserError, match="does not fit"):
        merged({"1.bias": before["1.bias"]}, small)


@pytest.mark.parametrize("rank", [0, 8])
def test_ranks_that_leave_nothing_to_learn_are_refused(rank):
    with pytest.raises(UserError, match="rank"):
        make_low_rank(nn.Sequential(nn.Linear(4, 8)), rank)


def test_a_walk_is_the_solvers_and_its_target_leads_from_state_to_state():
    sigmas = trained(6, SCHEDULES["cosine"]).double()
    noise, _ = states()
    passed = walk(MIXTURE.denoise, noise * sigmas[0], sigmas, 2)
    assert passed.shape == (64, 3, 1, 1, 2)
    whole = sample_dpmpp_2m(MIXTURE.denoise, noise * sigmas[0], sigmas)
    assert torch.equal(passed[:, -1], whole)
    first = sample_dpmpp_2m(MIXTURE.denoise, noise * sigmas[0], sigmas[:3])
    torch.testing.assert_close(passed[:, 0], first)
    levels = sigmas[[2, 4]].expand(64, 2)
    target = trajectory_target(passed[:, 0], passed[:, 1], levels)
    there = ddim_step(passed[:, 0], target, levels[:, 0], levels[:, 1])
    torch.testing.assert_close(there, passed[:, 1])
    # To the end, what denoised must be is the end itself; a student that says so has no loss.
    last = sigmas[[4, 6]].expand(64, 2)
    torch.testing.assert_close(trajectory_target(passed[:, 1], whole, last), whole)
    assert trajectory_loss(lambda x, sigma: whole, passed[:, 1], whole, last).max() < 1e-20
    off = trajectory_loss(lambda x, sigma: whole + 0.1, passed[:, 1], whole, last)
    torch.testing.assert_close(off, 0.01 * (1 + 1 / last[:, 0] ** 2))
