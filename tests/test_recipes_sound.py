"""The recipes for sound: each runs quickly on a tiny model, and keeps what it promises."""

from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image
from recipe_runs import Run, runner
from tiny_music import play_levels

from audiodiff import MusicPipeline
from audiodiff.audio_file import read_audio, read_parameters, write_audio
from audiodiff.clip import what_made
from imagediff import ImagePipeline
from recipes import studio
from recipes.colours import palette_of, read_palette
from recipes.sound import cover_art, drawn_curve, glitch, palette_pad, spectrogram_art
from shared.errors import UserError
from shared.guidance import Guidance

RATE = 44100


@pytest.fixture(scope="module")
def pipeline(tiny_music_model: Path) -> MusicPipeline:
    loaded = MusicPipeline.load(tiny_music_model, device="cpu", dtype="float32")
    loaded.codec.vocoder = play_levels  # no time for phases; what is made is noise anyway
    return loaded


@pytest.fixture(scope="module")
def drawing(tiny_model: Path) -> ImagePipeline:
    return ImagePipeline.load(tiny_model, device="cpu", dtype="float32")


@pytest.fixture
def run(
    pipeline: MusicPipeline,
    drawing: ImagePipeline,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Run:
    monkeypatch.setattr(studio, "music", lambda _: pipeline)
    monkeypatch.setattr(studio, "pictures", lambda _: drawing)
    return runner("sound", tmp_path, capsys)


def sound(path: Path) -> np.ndarray:
    samples, rate = read_audio(path)
    assert rate == RATE
    return samples


def test_the_drums_begin_at_once_and_the_beat_is_two_bars_and_a_tail(run: Run):
    _, files = run("drum_kit", "--tries", "1")
    for name in ("kick", "snare", "clap"):
        drum = np.abs(sound(files[f"{name}.wav"])).max(axis=0)
        assert drum.max() == pytest.approx(0.9, abs=1e-3)
        assert drum[: round(0.01 * RATE)].max() > 0.9 * 10 ** (-31 / 20)
        assert drum[-1] < 1e-3
    assert "a kick drum" in (read_parameters(files["kick.wav"]) or "")
    assert sound(files["beat.wav"]).shape[1] == round(32 * 15 * RATE / 110) + round(1.6 * RATE)


def test_the_riser_ends_on_the_beat(run: Run):
    figures, files = run("riser", "--bpm", "128")
    assert sound(files["riser.wav"]).shape == (2, round(4 * 60 / 128 * RATE))
    assert set(figures) >= {"rise, dB", "rise, octaves"}


def test_the_bed_of_ambience_has_no_seam(run: Run):
    figures, files = run("ambience")
    bed = sound(files["ambience.wav"])
    assert bed.shape == (2, 4 * RATE)
    assert b"smpl" in files["ambience.wav"].read_bytes()
    layers = sound(files["layer-1.wav"]) + sound(files["layer-2.wav"])
    assert np.corrcoef(bed.ravel(), layers.ravel())[0, 1] > 0.999
    assert figures["share of moments with more onset than the seam"] > 0.1
    assert np.abs(bed[:, 0] - bed[:, -1]).max() <= np.abs(np.diff(bed)).max()


def test_a_morph_s_ends_are_the_sounds_themselves(run: Run, pipeline: MusicPipeline):
    figures, files = run("morph", "a slow waltz", "fast techno")
    ends = (("a slow waltz", 5, "morph-1.wav"), ("fast techno", 6, "morph-3.wav"))
    for prompt, seed, name in ends:
        (clip,) = pipeline(prompt, seconds=1.5, seed=seed, steps=3)
        assert np.abs(sound(files[name]) - clip.samples).max() <= 2**-16
    assert figures["sound 1: distance to the first, nat"] == 0
    assert figures["sound 3: distance to the last, nat"] == 0
    assert figures["sound 2: distance to the first, nat"] > 0
    parts = [sound(files[f"morph-{number}.wav"]) for number in (1, 2, 3)]
    assert np.array_equal(sound(files["morph.wav"]), np.concatenate(parts, axis=1))


def test_a_morph_takes_files(run: Run, tmp_path: Path):
    time = np.arange(RATE) / RATE
    for name, hertz in (("a.wav", 220), ("b.wav", 330)):
        write_audio(tmp_path / name, 0.3 * np.sin(2 * np.pi * hertz * time)[None], RATE)
    _, files = run("morph", str(tmp_path / "a.wav"), str(tmp_path / "b.wav"))
    first = sound(files["morph-1.wav"])[0, :RATE]
    assert np.corrcoef(first, np.sin(2 * np.pi * 220 * time))[0, 1] > 0.999


def test_the_layers_of_an_impact_begin_together(run: Run):
    figures, files = run("impact")
    assert np.abs(sound(files["impact.wav"])).max() == pytest.approx(0.9, abs=1e-3)
    begins = [value for name, value in figures.items() if "begins" in name]
    assert len(begins) == 3 and max(begins) < 0.05


def test_a_hum_s_notes_are_heard_and_played(run: Run):
    figures, files = run("hummed_tune", "--as", "a slow waltz for piano")
    assert figures["notes that were heard"] == 2
    record = what_made(files["played.wav"])
    assert [pitch for _, _, pitch in record["sketch"]["melody"]["notes"]] == [60, 62]


def test_the_chords_are_those_of_every_style(run: Run):
    figures, files = run("eight_styles", "Am:4 F:4")
    assert len(figures) == 2
    for name in ("a-jazz-swing-trio.wav", "a-mellow-bossa-nova.wav"):
        spans = what_made(files[name])["sketch"]["chords"]["spans"]
        assert [chord for _, _, chord in spans][:2] == ["Am", "F"]


def test_nothing_is_overwritten_unasked(run: Run, tmp_path: Path):
    folder = tmp_path / "riser"
    folder.mkdir()
    (folder / "riser.wav").write_bytes(b"mine")
    with pytest.raises(UserError, match="--overwrite"):
        run("riser")
    assert (folder / "riser.wav").read_bytes() == b"mine"
    run("riser", "--overwrite")
    assert (folder / "riser.wav").read_bytes() != b"mine"


def test_a_fill_changes_nothing_else(run: Run):
    figures, files = run("drum_fill")
    plain, filled = sound(files["plain.wav"]), sound(files["fill.wav"])
    start, end = round(1.0 * RATE), round(2.0 * RATE)  # the last two of four beats at 120 bpm
    assert np.array_equal(
        np.delete(plain, np.s_[start:end], 1), np.delete(filled, np.s_[start:end], 1)
    )
    assert not np.array_equal(plain[:, start:end], filled[:, start:end])
    assert figures["largest change outside of the fill"] == 0
    # What was told of the beats is in no record, so that there is none to be misled by.
    assert list(what_made(files["fill.wav"])) == ["comment"]
    assert what_made(files["fill.wav"])["comment"].startswith("a rock drum solo")


def test_both_tracks_of_a_transition_stay(run: Run):
    figures, files = run("dj_transition")
    first, second, mix = (sound(files[f"{name}.wav"]) for name in ("first", "second", "mix"))
    assert mix.shape[1] == first.shape[1] + second.shape[1] - RATE
    assert np.array_equal(mix[:, : RATE // 2], first[:, : RATE // 2])
    assert np.array_equal(mix[:, -RATE // 2 :], second[:, -RATE // 2 :])
    assert figures["seconds of the first that stay to the bit"] >= 0.5
    assert figures["seconds of the second"] >= 0.5
    assert figures["seconds between"] <= 1
    assert what_made(files["mix.wav"])["task"] == "blend"


def test_a_glitch_is_as_long_as_its_clip_and_on_its_beats(run: Run):
    figures, files = run("glitch")
    plain, made = sound(files["plain.wav"]), sound(files["glitch-1.wav"])
    assert plain.shape == made.shape
    changed = {name for name, value in figures.items() if value > 1e-3}
    assert changed == {"beat 3: change", "beat 5: change"}


def test_a_stutter_says_its_first_bit_again(run: Run):
    part = np.random.default_rng(0).standard_normal((2, 4000)).astype(np.float32)
    twice = glitch.stuttered(part, 2, RATE)
    assert np.array_equal(twice[:, :2000], twice[:, 2000:])
    assert np.array_equal(twice[:, 500:1500], part[:, 500:1500])
    assert glitch.stuttered(part, 1, RATE) is part


def test_a_drawn_line_is_read_and_held(run: Run, tmp_path: Path):
    slope = np.full((100, 240, 3), 255, np.uint8)
    for x in range(20, 220):
        slope[90 - x * 80 // 240 :, x][:6] = 0
    Image.fromarray(slope).save(tmp_path / "slope.png")
    _, files = run("drawn_curve", str(tmp_path / "slope.png"), "--what", "dynamics")
    points = np.array(what_made(files["drawn.wav"])["sketch"]["dynamics"]["points"])
    assert points[0] == pytest.approx([0, -40]) and points[-1] == pytest.approx([2, -10])
    steps = np.diff(points[:, 1])
    assert steps == pytest.approx(steps.mean(), abs=0.5)
    with pytest.raises(UserError, match="no line"):
        drawn_curve.read_line(Image.new("RGB", (100, 50), "white"))


def test_a_guided_spectrogram_is_liker_to_the_picture(run: Run, pipeline: MusicPipeline):
    run("spectrogram_art")
    codec = pipeline.codec
    wanted = torch.full((codec.front_end.n_mels, 128), spectrogram_art.DARK)
    wanted[20:40, 30:90] = spectrogram_art.BRIGHT

    def error(*guidances: Guidance) -> float:
        seen = []
        pipeline(
            "a slow waltz", seconds=1.4, seed=5, steps=3, guidances=guidances,
            callback=lambda step, x, sigma, denoised: seen.append(denoised),
        )  # fmt: skip
        return spectrogram_art.unlike(codec, wanted)(seen[0]).item()

    assert error(spectrogram_art.towards(codec, wanted)) < error()


def test_a_picture_lies_in_its_band_of_pitches():
    picture = Image.new("L", (40, 30), 0)
    picture.paste(255, (0, 0, 20, 15))  # above, to the left
    bands = np.geomspace(50, 20_000, 64)
    light = spectrogram_art.laid_out(picture, bands, 100)
    middle = (spectrogram_art.LOWEST * spectrogram_art.HIGHEST) ** 0.5
    above = (bands > 1.05 * middle) & (bands < spectrogram_art.HIGHEST)
    assert (light[above, :45] == 1).all() and (light[:, 55:] == 0).all()
    below = (bands < 0.95 * middle) | (bands > spectrogram_art.HIGHEST)
    assert (light[below] == 0).all()


def test_a_palette_s_chords_are_its_own(run: Run, tmp_path: Path):
    red = [(0.6, (200, 30, 30)), (0.4, (120, 60, 20))]
    blue = [(0.6, (30, 60, 200)), (0.4, (120, 60, 20))]
    assert palette_pad.chords_of(red)[0][0] == "Cm" != palette_pad.chords_of(blue)[0][0]
    assert palette_pad.words_of(red) != palette_pad.words_of(blue)
    assert [beats for _, beats in palette_pad.chords_of(red)] == [5.0, 3.0]
    light = [(1.0, (255, 220, 220))]
    assert palette_pad.chords_of(light) == [("C", 8.0)]
    # The colours count, and not where they lie in the picture.
    first, second = Image.new("RGB", (64, 64), "red"), Image.new("RGB", (64, 64), "red")
    first.paste("navy", (0, 0, 16, 64))
    second.paste("navy", (48, 0, 64, 64))
    assert (
        palette_of(first, 2) == palette_of(second, 2) == [(0.75, (255, 0, 0)), (0.25, (0, 0, 128))]
    )
    first.save(tmp_path / "first.png")
    _, files = run("palette_pad", str(tmp_path / "first.png"))
    spans = what_made(files["pad.wav"])["sketch"]["chords"]["spans"]
    names = [name for name, _ in palette_pad.chords_of(palette_of(first, 5))]
    assert [name for *_, name in spans] == names
    with pytest.raises(UserError, match="reddish"):
        read_palette(["reddish"])


def test_pictures_come_on_the_beat_with_the_sound(run: Run, drawing: ImagePipeline):
    figures, files = run("music_visuals")
    assert figures["change after a beat over change before one"] > 1
    with av.open(files["visuals.mp4"]) as movie:
        assert len(list(movie.decode(video=0))) == 8  # 1.2 s at 6 a second, both ends
    with av.open(files["visuals.mp4"]) as movie:
        heard = np.concatenate([frame.to_ndarray() for frame in movie.decode(audio=0)], axis=1)
    clip = sound(files["music.wav"])
    # AAC, but the same sound at the same time.
    lead = heard[:, : clip.shape[1]].mean(0), clip[:, : heard.shape[1]].mean(0)
    assert np.corrcoef(*lead)[0, 1] > 0.95


def test_a_cover_shows_what_the_clip_is_of(run: Run):
    assert (
        cover_art.prompt_for("a waltz for violin", "C major") == "a violin on a yellow background"
    )
    assert cover_art.prompt_for("hm", "C minor") == "headphones on a blue background"
    assert cover_art.prompt_for("techno", None) == "a disco ball on a gray background"
    _, files = run("cover_art", "--title", "Dawn")
    with Image.open(files["cover_art.png"]) as cover:
        assert cover.size == (512, 624)
    assert "a guitar on a" in Image.open(files["drawn.png"]).text["parameters"]  # pyright: ignore
