"""Series of pictures: blends and animations, on a tiny model."""

import json
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from command import Duotone
from PIL import Image, ImageSequence

from imagediff import ImagePipeline
from imagediff.movie_settings import EASES, Keyframe, Script, moments
from imagediff.movies import animate, blend_strength
from imagediff.sheets import from_pil
from shared.errors import UserError
from shared.interpolation import slerp

SCRIPT = """
fps: 4
keyframes:
  - {at: 0, prompt: a red apple, seed: 3}
  - {at: 0.5, prompt: a dog, seed: 3, ease: linear}
  - {at: 1, prompt: a dog, seed: 5}
"""


def draw(name: str, seed: int, size: tuple[int, int] = (32, 32)) -> None:
    values = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3))
    Image.fromarray(values.astype(np.uint8)).save(name)


def frames_of(path: str) -> list[np.ndarray]:
    if path.endswith(".mp4"):
        with av.open(path) as container:
            return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    with Image.open(path) as movie:
        return [np.asarray(frame.convert("RGB")) for frame in ImageSequence.Iterator(movie)]


# From one to the other


def test_slerp_keeps_the_length_of_noise_and_meets_its_ends() -> None:
    first, second = torch.randn(2, 3, 4, 64, 64, generator=torch.Generator().manual_seed(0))
    assert torch.equal(slerp(first, second, 0), first)
    assert torch.equal(slerp(first, second, 1), second)
    for share in (0.1, 0.5, 0.7):
        assert slerp(first, second, share).std() == pytest.approx(1, abs=0.01)
    quarter = slerp(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]]), 1 / 3)
    torch.testing.assert_close(quarter, torch.tensor([[3**0.5 / 2, 0.5]]))
    torch.testing.assert_close(slerp(first, first, 0.3), first)


def test_the_ends_of_a_blend_are_the_codec_s_reconstructions(
    duotone: Duotone, tiny_model: Path
) -> None:
    draw("a.png", 1)
    draw("b.png", 2)
    how = ("--model", tiny_model, "--sampling-steps", 3, "--seed", 1, "--steps", 4)
    (path,) = duotone("blend", "a.png", "b.png", *how, "-o", "x.webp").out
    pipeline = ImagePipeline.load(tiny_model, "cpu", "float32")
    made = frames_of(path)
    assert len(made) == 4
    for name, frame in (("a.png", made[0]), ("b.png", made[-1])):
        with Image.open(name) as picture:
            (expected,) = pipeline.decode(pipeline.codec.encode(from_pil(picture)))
        assert np.array_equal(frame, np.asarray(expected))
    replayed = duotone("replay", path, "--model", tiny_model)
    assert replayed.out == ["x-replay.webp", "identical"]
    assert json.loads(duotone("info", path, "--json").out[0])["task"] == "blend"


def test_a_blend_is_strongest_in_the_middle() -> None:
    strengths = [blend_strength(0.8, share / 10) for share in range(11)]
    assert strengths[0] == 0 and strengths[-1] == pytest.approx(0) and strengths[5] == 0.8
    assert strengths == pytest.approx(strengths[::-1])


def test_a_sheet_has_every_picture(duotone: Duotone, tiny_model: Path) -> None:
    draw("a.png", 1, (40, 32))
    draw("b.png", 2)
    how = ("--model", tiny_model, "--sampling-steps", 1, "--seed", 1, "--steps", 3)
    (path,) = duotone("blend", "a.png", "b.png", *how).out
    assert path == "a-to-b-1.png"
    with Image.open(path) as sheet:
        assert sheet.width == 3 * (40 + 12) + 12


# Along a time line


def test_moments_by_hand() -> None:
    keyframes = (
        Keyframe(at=0, prompt="a", ease="linear"),
        Keyframe(at=1, prompt="b", ease="hold"),
        Keyframe(at=1.5, prompt="c"),
    )
    line = moments(Script(keyframes=keyframes, fps=4))
    told = [(moment.first.prompt, moment.second.prompt, moment.share) for moment in line]
    assert told == [
        *(("a", "b", share) for share in (0, 0.25, 0.5, 0.75)),
        *(("b", "c", 0) for _ in range(2)),
        ("c", "c", 0),
    ]


@pytest.mark.parametrize("name", [name for name in EASES if name != "hold"])
def test_eases_rise_from_0_to_1(name: str) -> None:
    values = [EASES[name](share / 8) for share in range(9)]
    assert values[0] == 0 and values[-1] == 1 and values == sorted(values)


def test_a_keyframe_is_the_picture_of_its_prompt_and_seed(tiny_model: Path, tmp_path: Path) -> None:
    from imagediff.movie_settings import AnimationSettings

    pipeline = ImagePipeline.load(tiny_model, "cpu", "float32")
    script = Script(
        keyframes=(
            Keyframe(at=0, prompt="a cat", seed=3),
            Keyframe(at=1, prompt="a dog", seed=4),
        ),
        fps=2,
    )
    (settings,) = pipeline.plan("a cat", seed=3, steps=2)
    settings = AnimationSettings(**vars(settings), task="animate", script="")
    made = list(animate(pipeline, settings, moments(script)))
    alone = [pipeline(text, seed=seed, steps=2)[0] for text, seed in (("a cat", 3), ("a dog", 4))]
    assert np.array_equal(np.asarray(made[0]), np.asarray(alone[0]))
    assert np.array_equal(np.asarray(made[2]), np.asarray(alone[1]))
    assert not np.array_equal(np.asarray(made[1]), np.asarray(made[0]))


@pytest.mark.parametrize("suffix", [".mp4", ".gif", ".webp"])
def test_animations_are_written_told_and_made_again(
    duotone: Duotone, tiny_model: Path, suffix: str
) -> None:
    Path("s.yaml").write_text(SCRIPT)
    result = duotone("animate", "s.yaml", "--model", tiny_model, "--steps", 2, "-o", f"x{suffix}")
    assert result.out == [f"x{suffix}"]
    frames = frames_of(f"x{suffix}")
    assert len(frames) == 5 and frames[0].shape == (32, 32, 3)
    record = json.loads(duotone("info", f"x{suffix}", "--json").out[0])
    assert record["task"] == "animate" and record["prompt"] == "a red apple"
    Path("s.yaml").unlink()
    replayed = duotone("replay", f"x{suffix}", "--model", tiny_model)
    assert replayed.out == [f"x-replay{suffix}", "identical"]


def test_an_mp4_of_odd_size_shows_its_pictures(tmp_path: Path) -> None:
    from test_generation import SETTINGS

    from imagediff.movies import save_movie

    frames = [Image.new("RGB", (33, 21), colour) for colour in ("red", "white", "blue")]
    save_movie(frames, tmp_path / "x.mp4", 12.5, SETTINGS)
    shown = frames_of(str(tmp_path / "x.mp4"))
    assert [frame.shape for frame in shown] == [(22, 34, 3)] * 3
    for frame, colour in zip(shown, ((255, 0, 0), (255, 255, 255), (0, 0, 255)), strict=True):
        assert np.abs(frame.astype(int) - colour).max() < 12
    with av.open(tmp_path / "x.mp4") as container:
        assert float(container.streams.video[0].average_rate or 0) == 12.5


def test_an_mp4_has_the_sound_that_it_is_given(tmp_path: Path) -> None:
    from test_generation import SETTINGS

    from imagediff.movies import Track, save_movie

    time = np.arange(44100) / 44100
    tone = (0.5 * np.sin(2 * np.pi * 440 * time)).astype(np.float32)
    track = Track(np.stack([tone, -tone]), 44100)
    frames = [Image.new("RGB", (32, 32), colour) for colour in ("red", "blue")]
    save_movie(frames, tmp_path / "x.mp4", 2, SETTINGS, sound=track)
    with av.open(tmp_path / "x.mp4") as movie:
        heard = np.concatenate([part.to_ndarray() for part in movie.decode(audio=0)], axis=1)
    assert heard.shape[1] == pytest.approx(44100, abs=1024)  # AAC comes in pieces of so many
    assert np.corrcoef(heard[0, :44100], tone[: heard.shape[1]])[0, 1] > 0.99
    assert np.corrcoef(heard[1, :44100], tone[: heard.shape[1]])[0, 1] < -0.99
    with pytest.raises(UserError, match=r"\.mp4 files do"):
        save_movie(frames, tmp_path / "x.gif", 2, SETTINGS, sound=track)
    assert not (tmp_path / "x.gif").exists()


@pytest.mark.parametrize(
    "text, fragment",
    [
        ("fps: 4", "keyframes"),
        (SCRIPT + "speed: 3", "speed"),
        (SCRIPT.replace("linear", "bouncy"), "unknown ease 'bouncy'"),
        (SCRIPT.replace("at: 0.5", "at: 2"), "follow each other in time"),
        (SCRIPT.replace("at: 0,", "at: 0.1,"), "begin at 0"),
        (SCRIPT.replace("fps: 4", "fps: 0"), "fps must be above 0"),
        (SCRIPT.replace("at: 1,", "at: 3000,"), "12001 pictures"),
        ("][", "not YAML"),
    ],
)
def test_scripts_that_do_not_work_are_refused(
    duotone: Duotone, tiny_model: Path, text: str, fragment: str
) -> None:
    Path("s.yaml").write_text(text)
    result = duotone("animate", "s.yaml", "--model", tiny_model)
    assert result.code == 2 and result.err.count("\n") == 1 and fragment in result.err


def test_refuses_in_a_line(duotone: Duotone, tiny_model: Path) -> None:
    draw("a.png", 1)
    Path("s.yaml").write_text(SCRIPT)
    model = ("--model", tiny_model)
    faults = {
        ("blend", "a.png", "b.png"): "there is no file 'b.png'",
        ("blend", "a.png", "a.png", "--steps", 1): "2 to 10000 pictures",
        ("blend", "a.png", "a.png", "--fps", 0): "fps",
        ("animate", "s.yaml", "--seed", 3): "--seed",
        ("animate", "none.yaml"): "none.yaml",
        ("animate", "s.yaml", "-o", "x.png"): ".mp4",
    }
    for args, fragment in faults.items():
        result = duotone(*args, *model)
        assert result.code == 2 and result.err.count("\n") == 1 and fragment in result.err
    with pytest.raises(UserError, match="unknown ease"):
        moments(
            Script(keyframes=(Keyframe(at=0, prompt="a", ease="x"), Keyframe(at=1, prompt="b")))
        )
