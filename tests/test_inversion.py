"""Editing from the noise that something comes from: DDIM inversion in sampling and in restyling."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from analytic import three_modes
from command import Duotone, names
from PIL import Image
from test_generation import SCHEDULE, SETTINGS, SHAPE
from tiny_music import play_levels
from torch import Tensor

from audiodiff import MusicPipeline
from imagediff import ImagePipeline
from imagediff.edit_settings import Edit
from shared.errors import UserError
from shared.generation import Start, inverted_noise, sample_latents, walked_sigmas

MIXTURE = three_modes()
# Clean signals near the middle one of three.
CLEAN = MIXTURE.means[1].view(1, *SHAPE) + torch.tensor([[0.2, -0.1], [0.0, 0.3]]).view(2, *SHAPE)


def returned(strength: float, steps: int, sampler: str) -> float:
    settings = replace(SETTINGS, steps=steps, sampler=sampler)
    start = Start(CLEAN.float(), strength)
    begin = inverted_noise(MIXTURE.denoise, settings, SCHEDULE, start)
    found = sample_latents(
        MIXTURE.denoise, settings, SCHEDULE, [0, 1], SHAPE, torch.device("cpu"),
        start=start, begin=begin,
    )  # fmt: skip
    return (found - CLEAN).abs().max().item()


@pytest.mark.parametrize("strength", [1.0, 0.6])
def test_the_noise_leads_back_and_the_nearer_the_more_steps(strength: float) -> None:
    few, more = (returned(strength, steps, "ddim") for steps in (40, 160))
    assert more < 0.4 * few and more < 0.05
    assert returned(strength, 160, "dpm++2m") < 0.1  # up by DDIM, down by another solver


def test_a_walk_of_no_steps_has_no_noise() -> None:
    begin = inverted_noise(MIXTURE.denoise, SETTINGS, SCHEDULE, Start(CLEAN, 0.0))
    assert not begin.any()
    assert len(walked_sigmas(SETTINGS, SCHEDULE, Start(CLEAN, 0.0))) == 1
    assert len(walked_sigmas(SETTINGS, SCHEDULE)) == SETTINGS.steps + 1


def test_a_sampler_with_noise_of_its_own_does_not_lead_back() -> None:
    settings = replace(SETTINGS, sampler="euler-ancestral")
    with pytest.raises(UserError, match="'euler-ancestral' adds fresh noise"):
        inverted_noise(MIXTURE.denoise, settings, SCHEDULE, Start(CLEAN, 1.0))


# In both arts


def image_sampling(folder: Path) -> tuple:
    pipeline = ImagePipeline.load(folder, "cpu", "float32")
    (settings,) = pipeline.plan("a red apple", steps=12, guidance_scale=1.0)
    shape = pipeline.latent_shape(settings.size)
    return pipeline.denoise_fn([settings]), settings, pipeline.noise_schedule, shape


def music_sampling(folder: Path) -> tuple:
    pipeline = MusicPipeline.load(folder, "cpu", "float32")
    (settings,) = pipeline.plan("a waltz", seconds=4.4, steps=12, guidance_scale=1.0)
    frames = pipeline.latent_frames(settings.seconds)
    assert frames > pipeline.window
    denoise, shape = pipeline.denoise_fn([settings], frames), pipeline.latent_shape(frames)
    return denoise, settings, pipeline.noise_schedule, shape


@pytest.mark.parametrize(
    "model, sampling", [("tiny_model", image_sampling), ("tiny_music_model", music_sampling)]
)
@torch.no_grad()
def test_what_a_network_made_is_found_again(
    model: str, sampling: Callable[[Path], tuple], request: pytest.FixtureRequest
) -> None:
    denoise, settings, schedule, shape = sampling(request.getfixturevalue(model))

    def sample(seed: int, **options: Any) -> Tensor:
        cpu = torch.device("cpu")
        return sample_latents(denoise, settings, schedule, [seed], shape, cpu, **options)

    x0 = sample(7)
    start = Start(x0, 1.0)
    begin = inverted_noise(denoise, settings, schedule, start)
    found, other = sample(1, start=start, begin=begin), sample(1, start=start)
    assert (found - x0).abs().mean() < 0.2 * (other - x0).abs().mean()


# From the command line


@pytest.fixture
def drawn(duotone: Duotone, tiny_model: Path) -> Path:
    """A picture of the tiny model, which knows what it shows."""
    args = ("--model", tiny_model, "--steps", 3, "--seed", 1, "-o", "in.png")
    duotone("image", "a red apple", *args)
    return Path("in.png")


def test_restyle_inverts_what_the_file_says_it_is(
    duotone: Duotone, drawn: Path, tiny_model: Path
) -> None:
    def restyle(*args: object) -> dict:
        common = ("--model", tiny_model, "--steps", 3, "--invert", "--json")
        return json.loads(duotone("restyle", drawn, "a green cat", *common, *args).out[0])

    record = restyle("--seed", 1, "-o", "x.png")
    assert record["invert"] == "a red apple" and record["prompt"] == "a green cat"
    restyle("--seed", 2, "-o", "y.png")
    with Image.open("x.png") as one, Image.open("y.png") as other:
        assert one.tobytes() == other.tobytes()  # the seed's noise is not used
    told = restyle("--source-prompt", "a dog", "-o", "z.png")
    assert told["invert"] == "a dog"
    with Image.open("x.png") as one, Image.open("z.png") as other:
        assert one.tobytes() != other.tobytes()
    assert duotone("replay", "x.png", "--model", tiny_model).out[-1] == "identical"


@pytest.mark.parametrize(
    "options, fragments",
    [
        (["--source-prompt", "a cat"], ["--invert"]),
        (["--invert", "--count", "2"], ["--count 1"]),
        (["--invert", "--sampler", "ddpm"], ["'ddpm'", "fresh noise"]),
    ],
)
def test_what_cannot_be_inverted_is_refused(
    duotone: Duotone, drawn: Path, tiny_model: Path, options: list[str], fragments: list[str]
) -> None:
    args = ("--model", tiny_model, "--steps", 3, *options)
    result = duotone("restyle", drawn, "a dog", *args)
    assert (result.code, result.out, names()) == (2, [], ["in.png"])
    assert result.err.splitlines()[-1].startswith("Error: ")
    assert all(fragment in result.err for fragment in fragments)


def test_restyle_alone_inverts() -> None:
    with pytest.raises(UserError, match="'vary' does not"):
        Edit(task="vary", source="-", source_hash="-", invert="")


def test_a_clip_is_inverted_too(
    duotone: Duotone, tiny_music_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load = MusicPipeline.load

    def quick(model: str, device: str, dtype: str) -> MusicPipeline:
        loaded = load(model, device, dtype)
        loaded.codec.vocoder = play_levels
        return loaded

    monkeypatch.setattr(MusicPipeline, "load", quick)
    soundfile.write("in.wav", np.random.default_rng(0).normal(0, 0.1, (44100, 2)), 44100)
    model = ("--model", tiny_music_model)

    def restyle(name: str, *args: object) -> bytes:
        made = duotone("restyle", "in.wav", "a waltz", "--steps", 3, "-o", name, *args, *model)
        assert made.out == [name], made.err
        return soundfile.read(name)[0].tobytes()

    inverted = restyle("x.wav", "--invert", "--source-prompt", "techno", "--seed", 1)
    assert inverted == restyle("y.wav", "--invert", "--source-prompt", "techno", "--seed", 2)
    assert len({inverted, restyle("z.wav", "--invert"), restyle("w.wav", "--seed", 1)}) == 3
    assert json.loads(duotone("info", "x.wav", "--json").out[0])["invert"] == "techno"
    assert duotone("replay", "x.wav", *model).out[-1] == "identical"
