"""docs/core.md: what it links to exists, and its examples give exact answers."""

import ast
import math
import re
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import pytest
import torch
from analytic import AnalyticNetwork, all_kinds, gaussian_flow, single_gaussian, three_modes
from torch import nn

from audiodiff import MusicPipeline
from imagediff import ImagePipeline
from shared.conditioning import Conditioning
from shared.denoiser import Denoiser
from shared.guidance import compose, plain
from shared.samplers import sample_heun
from shared.schedules import NoiseSchedule, linear_betas
from shared.sigma_grids import exponential

ROOT = Path(__file__).resolve().parent.parent
TEXT = (ROOT / "docs" / "core.md").read_text(encoding="utf-8")
LINKS = re.findall(r"\[`([\w.]+)`\]\((?:\.\.)?/([\w/]+\.py)\)", TEXT)
SCHEDULE = NoiseSchedule.from_betas(linear_betas())


@lru_cache
def names(file: str) -> set[str]:
    """What a file defines: functions, classes and constants, and classes' members after a dot."""
    found: set[str] = set()

    def add(body: list[ast.stmt], prefix: str) -> None:
        for node in body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                found.add(prefix + node.name)
            if isinstance(node, ast.ClassDef):
                add(node.body, f"{node.name}.")
            targets = node.targets if isinstance(node, ast.Assign) else []
            targets = [node.target] if isinstance(node, ast.AnnAssign) else targets
            found.update(prefix + t.id for t in targets if isinstance(t, ast.Name))

    add(ast.parse((ROOT / file).read_text(encoding="utf-8")).body, "")
    return found


def example(name: str) -> Any:
    """What the one block of Python on the page that defines ``name`` makes of it."""
    blocks = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    (block,) = [block for block in blocks if f"def {name}(" in block]
    assert len([line for line in block.splitlines() if line.strip()]) < 20
    space: dict[str, Any] = {}
    exec(block, space)
    return space[name]


@pytest.mark.parametrize("name, file", sorted(set(LINKS)))
def test_each_linked_name_is_in_its_file(name: str, file: str):
    assert name in names(file)


def test_the_page_s_own_links_lead_to_its_headings():
    headings = re.findall(r"^#+ (.+)$", TEXT, re.MULTILINE)
    slugs = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
    targets = re.findall(r"\]\(#([^)]+)\)", TEXT)
    assert targets and set(targets) <= slugs


def test_the_sampler_solves_a_gaussian_s_ode_with_order_2():
    sample_ab2, gaussian = example("sample_ab2"), single_gaussian()
    x = 10 * torch.randn(16, 1, 1, 2, generator=torch.Generator().manual_seed(0)).double()
    exact = gaussian_flow(gaussian, x, 10.0, 0.1)
    errors = []
    for n in (64, 128, 256):
        sigmas = torch.linspace(math.log(10), math.log(0.1), n + 1).double().exp()
        calls = []
        found = sample_ab2(
            gaussian.denoise, x, sigmas, callback=lambda step, *_, calls=calls: calls.append(step)
        )
        assert calls == list(range(n))
        errors.append((found - exact).abs().max().item())
    assert math.log2(errors[0] / errors[1]) == pytest.approx(2, abs=0.1)
    assert math.log2(errors[1] / errors[2]) == pytest.approx(2, abs=0.1)
    # The step to 0 ends in the estimate itself.
    last = torch.tensor([0.5, 0.0]).double()
    assert torch.equal(
        sample_ab2(gaussian.denoise, x, last), gaussian.denoise(x, torch.full((16,), 0.5))
    )


def test_the_guidance_clips_what_is_out_of_range_and_nothing_else():
    thresholded = example("thresholded")
    inside = torch.linspace(-1, 1, 32).view(2, 1, 4, 4)
    sigma = torch.ones(2)
    assert torch.equal(thresholded(lambda x, sigma: x)(inside, sigma), inside)
    # 0 .. 2 in 16 steps, its 0.75 quantile is 1.5; and a sample within range.
    outside = torch.stack([torch.linspace(0, 2, 17)[None, None], torch.zeros(1, 1, 17)])
    outside = outside.view(2, 1, 1, 17)
    guided = thresholded(lambda x, sigma: x, share=0.75)(outside, sigma)
    torch.testing.assert_close(guided[0], outside[0].clamp(max=1.5) / 1.5)
    assert torch.equal(guided[1], outside[1])
    with_both = compose(lambda x, sigma: x, partial(thresholded, share=0.75), thresholded)
    torch.testing.assert_close(with_both(outside, sigma), guided)


def test_the_parameterization_of_an_exact_score_is_the_exact_denoiser():
    mixture = three_modes()

    class Score(nn.Module):
        def forward(self, x, c_noise, cond):
            return mixture.score(x, c_noise.exp())

    denoiser, cond = Denoiser(Score(), example("score_kind")), Conditioning()
    generator = torch.Generator().manual_seed(0)
    x0, noise = torch.randn(2, 5, 1, 1, 2, generator=generator).double()
    sigma = torch.tensor([0.02, 0.3, 1.0, 4.0, 60.0]).double()
    x = x0 + sigma[:, None, None, None] * noise
    torch.testing.assert_close(denoiser(x, sigma, cond), mixture.denoise(x, sigma))
    # What it is trained to say is the score of the noise: minus the noise by sigma.
    torch.testing.assert_close(
        denoiser.target(x0, noise, sigma), -noise / sigma[:, None, None, None]
    )
    sigmas = exponential(10, 0.02, 60.0).double()
    found = sample_heun(plain(denoiser, cond), 60 * noise, sigmas)
    torch.testing.assert_close(found, sample_heun(mixture.denoise, 60 * noise, sigmas))


def test_the_bound_of_an_exact_denoiser_is_the_entropy():
    gaussian = single_gaussian()
    kind = all_kinds(SCHEDULE)["eps"]
    denoiser = Denoiser(AnalyticNetwork(gaussian, kind), kind.parameterization, SCHEDULE)
    # All pairs of corners of a square: their mean of a square is that of Gaussians, exactly.
    corners = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0]).double()] * 4)
    x0 = (gaussian.means[0] + gaussian.stds[0] * corners[:, :2]).view(16, 1, 1, 2)
    noise = corners[:, 2:].reshape(16, 1, 1, 2)
    low, high = 0.05, 100.0
    sigmas = torch.tensor([low, high]).double().repeat(100)
    found = example("negative_elbo")(denoiser, x0, noise, sigmas).mean().item()
    variance = gaussian.stds[0].item() ** 2 + low**2
    entropy = math.log(2 * math.pi * math.e * variance)  # of two numbers
    assert found == pytest.approx(entropy, abs=1e-3)


def test_the_likelihood_of_a_gaussian_is_exact_and_pipelines_have_one(
    tiny_model: Path, tiny_music_model: Path
):
    bits_a_number, gaussian = example("bits_a_number"), single_gaussian()
    x0 = gaussian.means[0].view(1, 1, 1, 2) + torch.tensor([[0.0, 0.3], [-0.5, 0.1]]).view(
        2, 1, 1, 2
    )
    found = bits_a_number(gaussian.denoise, x0.double(), SCHEDULE)
    variance = gaussian.stds[0] ** 2 + SCHEDULE.sigma_min**2
    off = (x0 - gaussian.means[0].view(1, 1, 1, 2)).square().flatten(1).sum(1)
    nats = off / (2 * variance) + torch.log(2 * math.pi * variance)
    torch.testing.assert_close(found, (nats / (2 * math.log(2))).double(), rtol=0, atol=0.01)

    images = ImagePipeline.load(tiny_model, "cpu", "float32")
    music = MusicPipeline.load(tiny_music_model, "cpu", "float32")
    plan = images.plan("a red apple", guidance_scale=1)
    picture = images.denoise_fn(plan), (1, *images.latent_shape(plan[0].size)), images
    frames = music.latent_frames(0.5)
    clip = (
        music.denoise_fn(music.plan("a waltz", seconds=0.5, guidance_scale=1), frames),
        (1, *music.latent_shape(frames)),
        music,
    )
    for denoise, shape, pipeline in (picture, clip):
        generator = torch.Generator().manual_seed(0)
        usual = torch.randn(shape, generator=generator)
        bits = [
            bits_a_number(denoise, latents, pipeline.noise_schedule, 0.1, tol=0.1).item()
            for latents in (usual, 20 * usual)
        ]
        assert math.isfinite(bits[0]) and bits[0] < bits[1]  # what is far from data is unlikely
