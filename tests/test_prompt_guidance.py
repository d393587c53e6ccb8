"""Guidance as settings say it: its numbers, its record and its options."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from command import Duotone, refused
from PIL import Image, PngImagePlugin
from test_generation import SETTINGS
from tiny import UNET
from torch import Tensor

from imagediff import ImagePipeline
from imagediff.png import RECORD, open_png
from shared.conditioning import Conditioning
from shared.denoiser import DenoiseFn, Denoiser
from shared.distillation.student import guided_by
from shared.errors import UserError
from shared.guidance import (
    attending_blocks,
    classifier_free,
    classifier_free_pp,
    perturbed,
    plain,
)
from shared.parameterization import flow
from shared.pipelines import encode_prompts
from shared.prompt_guidance import Emphasis, prompt_guidance
from shared.schedules import make_sigmas
from shared.settings import GuidanceSettings, SampleSettings
from shared.unet import UNet
from shared.weaker import WeakGuide

STEPS, SCALE = 10, 3.0

Conds = tuple[Conditioning, Conditioning]
SOME = replace(SETTINGS, steps=STEPS, guidance_scale=SCALE, schedule="karras")


@pytest.fixture(scope="module")
def pipeline(tiny_model: Path) -> ImagePipeline:
    return ImagePipeline.load(tiny_model, device="cpu", dtype="float32")


@pytest.fixture(scope="module")
def conds(pipeline: ImagePipeline) -> Conds:
    with torch.no_grad():
        cond, uncond = (
            encode_prompts(pipeline.text_encoder, [text]) for text in ("a red apple", "")
        )
    return cond, uncond


@pytest.fixture(scope="module")
def sigmas(pipeline: ImagePipeline) -> Tensor:
    return make_sigmas("karras", STEPS, pipeline.noise_schedule)


@torch.no_grad()
def walk(denoise: DenoiseFn, sigmas: Tensor) -> list[Tensor]:
    """What it says of some state at each level of the grid but 0."""
    x = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    return [denoise(x * sigma, sigma[None]) for sigma in sigmas[:-1]]


def says(
    pipeline: ImagePipeline,
    conds: Conds,
    guidance: GuidanceSettings,
    settings: SampleSettings = SOME,
) -> DenoiseFn:
    settings = replace(settings, guidance=guidance)
    return prompt_guidance(pipeline.denoiser, settings, pipeline.noise_schedule)(*conds)


def equal(first: list[Tensor], second: list[Tensor]) -> list[bool]:
    return [torch.equal(*pair) for pair in zip(first, second, strict=True)]


def test_as_it_is_it_is_classifier_free_guidance_to_the_bit(
    pipeline: ImagePipeline, conds: Conds, sigmas: Tensor
) -> None:
    found = walk(says(pipeline, conds, GuidanceSettings()), sigmas)
    assert all(equal(found, walk(classifier_free(pipeline.denoiser, *conds, SCALE), sigmas)))
    off = walk(says(pipeline, conds, GuidanceSettings(), replace(SOME, guidance_scale=1)), sigmas)
    assert all(equal(off, walk(plain(pipeline.denoiser, conds[0]), sigmas)))


@pytest.mark.parametrize(
    "interval, guided",
    [((0.2, 0.7), range(2, 7)), ((0.0, 0.31), range(0, 4)), ((0.55, 1.0), range(6, 10))],
)
@pytest.mark.parametrize("cfg_pp, pag_scale", [(None, 0.0), (None, 2.0), (0.5, 0.0)])
def test_outside_its_interval_the_prompt_speaks_alone(
    pipeline: ImagePipeline, conds: Conds, sigmas: Tensor, interval, guided, cfg_pp, pag_scale
) -> None:
    how = GuidanceSettings(cfg_pp=cfg_pp, pag_scale=pag_scale)
    found = walk(says(pipeline, conds, replace(how, interval=interval)), sigmas)
    always = walk(says(pipeline, conds, how), sigmas)
    alone = walk(plain(pipeline.denoiser, conds[0]), sigmas)
    assert equal(found, always) == [step in guided for step in range(STEPS)]
    assert equal(found, alone) == [step not in guided for step in range(STEPS)]


def test_rescale_is_that_of_classifier_free(
    pipeline: ImagePipeline, conds: Conds, sigmas: Tensor
) -> None:
    found = walk(says(pipeline, conds, GuidanceSettings(rescale=0.7)), sigmas)
    expected = classifier_free(pipeline.denoiser, *conds, SCALE, rescale=0.7)
    assert all(equal(found, walk(expected, sigmas)))


@pytest.mark.parametrize("sampler, eta", [("ddim", 0.0), ("euler", 0.0), ("ddpm", 1.0)])
def test_cfg_pp_knows_grid_and_sampler(
    pipeline: ImagePipeline, conds: Conds, sigmas: Tensor, sampler: str, eta: float
) -> None:
    settings = replace(SOME, sampler=sampler)
    found = walk(says(pipeline, conds, GuidanceSettings(cfg_pp=0.6), settings), sigmas)
    expected = classifier_free_pp(pipeline.denoiser, *conds, 0.6, sigmas, eta)
    assert all(equal(found, walk(expected, sigmas)))


def test_perturbed_attention_is_added_as_in_other_tools(
    pipeline: ImagePipeline, conds: Conds, sigmas: Tensor
) -> None:
    found = walk(says(pipeline, conds, GuidanceSettings(pag_scale=2.0)), sigmas)
    guided = walk(classifier_free(pipeline.denoiser, *conds, SCALE), sigmas)
    cond = walk(plain(pipeline.denoiser, conds[0]), sigmas)
    blind = walk(perturbed(pipeline.denoiser, conds[0]), sigmas)
    for step in range(STEPS):
        expected = guided[step] + 2 * (cond[step] - blind[step])
        assert not torch.allclose(found[step], guided[step], rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(found[step], expected, rtol=1e-4, atol=1e-5)


def test_what_is_emphasised_is_followed_more_beside_other_guidance(
    pipeline: ImagePipeline, conds: Conds, sigmas: Tensor
) -> None:
    with torch.no_grad():
        less = encode_prompts(pipeline.text_encoder, ["an apple"])
    how = GuidanceSettings(pag_scale=2.0)
    told = [Emphasis(0.75, lambda cond: less)]

    def weak(cond: Conditioning) -> DenoiseFn:
        return plain(pipeline.denoiser, conds[1])

    def emphasised(scale: float, how: GuidanceSettings, worse: WeakGuide | None) -> list[Tensor]:
        settings = replace(SOME, guidance=how, guidance_scale=scale)
        return walk(
            prompt_guidance(pipeline.denoiser, settings, pipeline.noise_schedule, worse, told)(
                *conds
            ),
            sigmas,
        )

    cond, uncond, without = (walk(plain(pipeline.denoiser, one), sigmas) for one in (*conds, less))
    blind = walk(perturbed(pipeline.denoiser, conds[0]), sigmas)
    alone = emphasised(SCALE, GuidanceSettings(), None)
    taught = walk(guided_by(pipeline.denoiser, *conds, torch.tensor([SCALE]), told), sigmas)
    beside = emphasised(SCALE, how, weak)  # autoguidance has a scale of 2, so 1 beyond
    for step in range(STEPS):
        expected = uncond[step] + SCALE * (cond[step] - uncond[step])
        expected = expected + 0.75 * (SCALE - 1) * (cond[step] - without[step])
        torch.testing.assert_close(alone[step], expected, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(taught[step], expected, rtol=1e-4, atol=1e-5)
        expected = expected + 2 * (cond[step] - blind[step]) + (cond[step] - uncond[step])
        torch.testing.assert_close(beside[step], expected, rtol=1e-4, atol=1e-5)
    assert all(equal(emphasised(1.0, GuidanceSettings(), None), cond))


def test_cfg_pp_needs_steps_that_it_knows(pipeline: ImagePipeline, conds: Conds) -> None:
    with pytest.raises(UserError, match="'adaptive' chooses its own"):
        says(pipeline, conds, GuidanceSettings(cfg_pp=0.6), replace(SOME, sampler="adaptive"))


@pytest.mark.parametrize(
    "size, blocks",
    [
        (4, ("down_blocks.0", "up_blocks.1")),  # nowhere 64 places: where most are
        (8, ("down_blocks.0", "up_blocks.1")),
        ([8, 16], ("down_blocks.0", "up_blocks.1")),
        (16, ("mid_block",)),
        ([8, 32], ("mid_block",)),
    ],
)
def test_attention_is_blinded_where_it_sees_enough(size, blocks) -> None:
    network = UNet.from_config(UNET | {"sample_size": size})
    assert attending_blocks(Denoiser(network, flow())) == blocks


def test_a_network_without_attention_cannot_be_blinded() -> None:
    with pytest.raises(UserError, match="needs a network with self-attention"):
        attending_blocks(Denoiser(torch.nn.Conv2d(4, 4, 1), flow()))


@pytest.mark.parametrize(
    "make, fragment",
    [
        (lambda: GuidanceSettings(interval=(0.5, 0.5)), "LOW < HIGH"),
        (lambda: GuidanceSettings(interval=(-0.1, 0.5)), "-0.1:0.5"),
        (lambda: GuidanceSettings(interval=(0, float("nan"))), "nan"),
        (lambda: GuidanceSettings(rescale=1.1), "rescale must be from 0"),
        (lambda: GuidanceSettings(cfg_pp=4), "CFG++ must be from 0 to 1, not 4"),
        (lambda: GuidanceSettings(pag_scale=-1), "PAG scale"),
        (lambda: GuidanceSettings(cfg_pp=0.5, rescale=0.5), "CFG++ goes neither"),
        (lambda: GuidanceSettings(cfg_pp=0.5, autoguidance="x"), "CFG++ goes neither"),
        (lambda: GuidanceSettings(autoguidance="x", autoguidance_scale=0.5), "from 1 .off. to"),
        (lambda: GuidanceSettings(autoguidance_scale=3), "needs a model: --autoguidance"),
        (lambda: replace(SOME, guidance=GuidanceSettings(interval=(0.51, 0.59))), "none of the 10"),
    ],
)
def test_what_cannot_be_is_refused(make: Callable[[], object], fragment: str) -> None:
    with pytest.raises(UserError, match=fragment.replace("+", r"\+")):
        make()


# From the command line


@pytest.fixture
def image(duotone: Duotone, tiny_model: Path) -> Duotone:
    return lambda *args: duotone("image", "--model", tiny_model, "--steps", 4, "--seed", 1, *args)


@pytest.mark.parametrize(
    "options, recorded, told",
    [
        (["--guidance-interval", "0.25:1"], {"interval": [0.25, 1]}, "CFG interval: 0.25-1"),
        (["--guidance-rescale", "0.7"], {"rescale": 0.7}, "CFG scale: 4.0, CFG rescale: 0.7"),
        (["--cfg-pp", "0.6", "--sampler", "ddim"], {"cfg_pp": 0.6}, "CFG++ scale: 0.6"),
        (["--pag-scale", "3"], {"pag_scale": 3}, "PAG scale: 3.0"),
    ],
)
def test_each_is_recorded_and_replayed(
    image: Duotone, duotone: Duotone, tiny_model: Path, options, recorded, told
) -> None:
    plain = image("a cat", "-o", "plain.png", "--json").out[0]
    record = json.loads(image("a cat", "-o", "x.png", "--json", *options).out[0])
    assert record["guidance"] == json.loads(plain)["guidance"] | recorded
    assert told in open_png(Path("x.png"))[1]["parameters"]
    assert Image.open("x.png").tobytes() != Image.open("plain.png").tobytes()
    (name,) = recorded
    line = next(line for line in duotone("info", "x.png").out if f"guidance {name} " in line)
    assert line.split()[2:] != []
    assert duotone("replay", "x.png", "--model", tiny_model).out[-1] == "identical"


def test_a_record_from_before_these_options_replays(
    image: Duotone, duotone: Duotone, tiny_model: Path
) -> None:
    image("a cat", "-o", "x.png")
    picture, text = open_png(Path("x.png"))
    record = json.loads(text[RECORD])
    del record["guidance"]
    chunks = PngImagePlugin.PngInfo()
    chunks.add_itxt(RECORD, json.dumps(record))
    picture.save("old.png", pnginfo=chunks)
    assert duotone("replay", "old.png", "--model", tiny_model).out == [
        "old-replay.png",
        "identical",
    ]


@pytest.mark.parametrize(
    "options, fragments",
    [
        (["--guidance-interval", "0.5"], ["LOW:HIGH", "'0.5'"]),
        (["--guidance-interval", "0.8:0.2"], ["0.8:0.2", "LOW < HIGH"]),
        (["--guidance-interval", "0.3:0.4"], ["0.3:0.4", "none of the 4 steps"]),
        (["--guidance-rescale", "2"], ["rescale", "0 (off) to 1"]),
        (["--cfg-pp", "1.5"], ["CFG++", "0 to 1"]),
        (["--cfg-pp", "0.5", "--pag-scale", "1"], ["CFG++", "PAG"]),
        (["--autoguidance", "nowhere"], ["nowhere"]),
        (["--autoguidance-scale", "3"], ["--autoguidance MODEL"]),
    ],
)
def test_bad_options(image: Duotone, options: list[str], fragments: list[str]) -> None:
    refused(image("cat", *options), *fragments)


def test_music_takes_them_too(duotone: Duotone, tiny_music_model: Path) -> None:
    def music(*args: object) -> dict:
        common = ("--model", tiny_music_model, "--seconds", 0.5, "--steps", 2, "--seed", 1)
        return json.loads(duotone("music", "a waltz", *common, "--json", *args).out[0])

    record = music("--pag-scale", 2, "--guidance-rescale", 0.5, "-o", "x.wav")
    assert record["guidance"] == {
        "interval": [0, 1],
        "rescale": 0.5,
        "cfg_pp": None,
        "pag_scale": 2,
        "autoguidance": None,
        "autoguidance_scale": 2,
        "autoguidance_hash": None,
    }
    music("-o", "plain.wav")
    assert Path("x.wav").read_bytes()[-4000:] != Path("plain.wav").read_bytes()[-4000:]
    assert duotone("replay", "x.wav", "--model", tiny_music_model).out[-1] == "identical"
