"""Students of data known exactly: how far their samples in few steps are from the target.

Each bound stands beside what was measured. A *ratio* is the student's sliced Wasserstein distance
from the data over that of the exact denoiser, walked by DDIM in as many steps.
"""

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor

from shared import parameterization as kinds
from shared.conditioning import Conditioning
from shared.denoiser import DenoiseFn, Denoiser
from shared.distillation import (
    coarse_steps,
    consistency_distillation_loss,
    consistency_training_loss,
    doubling_pairs,
    easy_pairs,
    guided_loss,
    progressive_loss,
    trajectory_loss,
    walk,
)
from shared.guidance import with_scale
from shared.samplers import sample_ddim, sample_lcm
from shared.schedules import NoiseSchedule, trained
from tests.analytic import GaussianMixture
from tests.students import (
    MIXTURE,
    SCHEDULE,
    bound,
    fit,
    log_normal,
    off_target,
    sample,
    sliced_wasserstein,
    student,
)

V = kinds.v(SCHEDULE)


@pytest.fixture(scope="module")
def trained_denoiser() -> Denoiser:
    """What students begin as: a network that knows how to denoise."""
    denoiser = student(V)

    def levels(uniforms: Tensor, normals: Tensor, _: float) -> Tensor:
        return log_normal(uniforms, normals)[:, None]

    fit(denoiser, guided_loss, MIXTURE.denoise, levels, steps=300, rate=4e-3)
    return denoiser


@pytest.fixture(scope="module")
def teacher_off() -> dict[int, float]:
    """How far the exact denoiser's samples of so many DDIM steps are from the data."""
    return {n: off_target(sample(MIXTURE.denoise, sample_ddim, n)) for n in (1, 2, 4)}


def begun_as(denoiser: Denoiser, parameterization: kinds.Parameterization = V) -> Denoiser:
    begun = student(parameterization)
    begun.network.load_state_dict(denoiser.network.state_dict())
    return begun


def path(denoise: DenoiseFn, steps: int) -> Tensor:
    """The states (steps b 1 1 2) that DDIM comes through, from the first on."""
    seen: list[Tensor] = []
    sigmas = trained(steps, SCHEDULE)
    x = torch.randn(500, 1, 1, 2, generator=torch.Generator().manual_seed(3)) * sigmas[0]
    with torch.no_grad():
        last = sample_ddim(denoise, x, sigmas, callback=lambda _, x, *__: seen.append(x))
    return torch.stack([*seen, last])


def rms(error: Tensor) -> float:
    return error.square().mean().sqrt().item()


def test_progressive_rounds_halve_the_steps(trained_denoiser, teacher_off):
    teacher, begun = MIXTURE.denoise, trained_denoiser
    for steps, ratio in ((4, 0.75), (2, 0.4), (1, 0.25)):  # measured: 0.54, 0.27, 0.16
        grid = trained(2 * steps, SCHEDULE)

        def levels(uniforms: Tensor, normals: Tensor, _: float, grid: Tensor = grid) -> Tensor:
            return coarse_steps(grid, uniforms)

        begun = begun_as(begun)
        learnt = fit(begun, progressive_loss, teacher, levels, steps=400, rate=2e-3)
        # The student's path of N steps is its teacher's of 2N, at every second level.
        own, followed = path(learnt, steps), path(teacher, 2 * steps)[::2]
        apart = path(teacher, steps)  # what the teacher's own N steps do
        following = rms(own - followed) / rms(apart - followed)
        found = off_target(sample(learnt, sample_ddim, steps)) / teacher_off[steps]
        print("progressive", steps, following, found)
        assert following < 0.6  # measured: 0.30, 0.04, 0.04
        assert found < ratio
        teacher = learnt


@pytest.mark.parametrize(("steps", "ratio"), [(4, 0.4), (2, 0.25), (1, 0.15)])
def test_a_student_follows_paths_that_were_walked_once(
    trained_denoiser: Denoiser, teacher_off: dict[int, float], steps: int, ratio: float
) -> None:
    grid, every = trained(16, SCHEDULE), 16 // steps
    generator = torch.Generator().manual_seed(5)
    noise = torch.randn(4000, 1, 1, 2, generator=generator) * grid[0]
    states = torch.cat([noise[:, None], walk(MIXTURE.denoise, noise, grid, every)], 1)
    levels = grid[::every]

    def loss(student: DenoiseFn, _: DenoiseFn, x0: Tensor, __: Tensor, drawn: Tensor) -> Tensor:
        path, step = drawn.long().unbind(1)
        pair = torch.stack([levels[step], levels[step + 1]], 1)
        return trajectory_loss(student, states[path, step], states[path, step + 1], pair)

    def picks(uniforms: Tensor, normals: Tensor, _: float) -> Tensor:
        number = uniforms * len(states) * steps
        return torch.stack([number // steps, number % steps], 1)

    learnt = fit(begun_as(trained_denoiser), loss, MIXTURE.denoise, picks, steps=400, rate=2e-3)
    found = off_target(sample(learnt, sample_ddim, steps)) / teacher_off[steps]
    print("trajectory", steps, found)
    assert found < ratio  # measured: 0.21, 0.11, 0.07


def test_a_student_that_takes_the_scale_does_what_guidance_does():
    wanted = GaussianMixture(torch.ones(1).double(), MIXTURE.means[:1], MIXTURE.stds[:1])
    denoiser = student(V, guidance_dim=8)

    def guided(scale: Tensor) -> DenoiseFn:
        def denoise(x: Tensor, sigma: Tensor) -> Tensor:
            without = MIXTURE.denoise(x, sigma)
            factor = scale[:, None, None, None]
            return without + factor * (wanted.denoise(x, sigma) - without)

        return denoise

    def told(scale: Tensor) -> DenoiseFn:
        cond = Conditioning(context=torch.zeros(len(scale), 1, 1))
        return bound(denoiser, with_scale(cond, scale, 8))

    def loss(_: DenoiseFn, __: DenoiseFn, x0: Tensor, noise: Tensor, drawn: Tensor) -> Tensor:
        scale = drawn[:, 1]
        return guided_loss(told(scale), guided(scale), x0, noise, drawn[:, :1])

    def levels(uniforms: Tensor, normals: Tensor, _: float) -> Tensor:
        # A uniform number's later digits are as good as another's.
        scale = 1 + 3 * (uniforms * 1000 % 1)
        return torch.stack([log_normal(uniforms, normals), scale], 1)

    fit(denoiser, loss, MIXTURE.denoise, levels, steps=900, rate=5e-3)
    scales = {value: torch.full((3000,), value) for value in (1.0, 2.0, 4.0)}
    theirs = {value: sample(guided(s), sample_ddim, 8) for value, s in scales.items()}
    apart = sliced_wasserstein(theirs[1.0], theirs[4.0])
    for value, scale in scales.items():
        mine = sample(told(scale), sample_ddim, 8)
        found = sliced_wasserstein(mine, theirs[value]) / apart
        print("guided", value, found)
        assert found < 0.35  # measured: 0.24, 0.12, 0.19


def test_consistency_distillation_jumps_to_the_end(
    trained_denoiser: Denoiser, teacher_off: dict[int, float]
) -> None:
    begun = begun_as(trained_denoiser, kinds.consistency(V, SCHEDULE))

    def levels(uniforms: Tensor, normals: Tensor, progress: float) -> Tensor:
        return doubling_pairs(log_normal(uniforms, normals), progress, SCHEDULE, 3, first=4)

    loss = partial(consistency_distillation_loss, c=0.1)
    learnt = fit(begun, loss, MIXTURE.denoise, levels, steps=500, rate=6e-4)
    for steps, ratio in ((1, 0.35), (2, 0.4), (4, 0.75)):  # measured: 0.24, 0.25, 0.68
        found = off_target(sample(learnt, sample_lcm, steps)) / teacher_off[steps]
        print("cd", steps, found)
        assert found < ratio


@pytest.mark.parametrize(
    "pairs, ratios",
    [
        (partial(easy_pairs, stages=3), (0.6, 0.6, 1.1)),  # measured: 0.26, 0.28, 0.53
        (partial(doubling_pairs, stages=3, first=4), (0.45, 0.55, 0.95)),  # 0.32, 0.39, 0.77
    ],
    ids=["easy tuning", "training"],
)
def test_consistency_training_needs_no_teacher(
    trained_denoiser: Denoiser,
    teacher_off: dict[int, float],
    pairs: Callable[[Tensor, float, NoiseSchedule], Tensor],
    ratios: tuple[float, ...],
) -> None:
    begun = begun_as(trained_denoiser, kinds.consistency(V, SCHEDULE))

    def levels(uniforms: Tensor, normals: Tensor, progress: float) -> Tensor:
        return pairs(log_normal(uniforms, normals), progress, SCHEDULE)

    def no_teacher(x: Tensor, sigma: Tensor) -> Tensor:
        raise AssertionError("it was asked")

    # One sample tells the neighbour only roughly: small steps, and a metric that is a square.
    loss = partial(consistency_training_loss, c=0.1)
    learnt = fit(begun, loss, no_teacher, levels, steps=500, rate=4e-4, batch=512)
    for (steps, off), ratio in zip(teacher_off.items(), ratios, strict=True):
        found = off_target(sample(learnt, sample_lcm, steps)) / off
        print("ct", steps, found)
        assert found < ratio
