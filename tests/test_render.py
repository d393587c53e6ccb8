import dataclasses
import os
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from audiodiff import render as module
from audiodiff.labels import labels_from_score
from audiodiff.render import Renderer, find_soundfont, loaded, render, render_part
from audiodiff.score import Note, Part, Score
from audiodiff.sounds import COMPUTED, sound
from audiodiff.theory import parse_chord, parse_key
from shared.errors import UserError

RATE = 44100


def _soundfont() -> Path | None:
    try:
        return loaded(find_soundfont()).soundfont
    except UserError:
        return None


SOUNDFONT = _soundfont()
FONT = SOUNDFONT or Path("missing.sf2")
needs_soundfont = pytest.mark.skipif(
    SOUNDFONT is None, reason="fluidsynth and fluid-soundfont-gm not installed"
)


def part(instrument: str, program: int, role: str, *notes: Note, pan: float = 0.0) -> Part:
    return Part(instrument, program, role, notes, pan, 0.9, 0.0)


def score(*parts: Part, tempo: float = 120.0, beats: int = 8) -> Score:
    chords = (parse_chord("Am"),) * beats
    key = parse_key("A minor")
    return Score("test", "calm", tempo, 4, key, chords, parts, ((0, "verse"),), beats, "test")


KICKS = part("drums", 0, "drums", *(Note(float(i), 0.2, 36, 100) for i in range(8)))
TUNE = part(
    "flute", 73, "melody", *(Note(i * 2.0, 1.8, p, 90) for i, p in enumerate((69, 72, 76, 81)))
)
PAD = part("synth pad", 89, "pad", Note(0.0, 8.0, 57, 80), Note(0.0, 8.0, 64, 80))


@needs_soundfont
@pytest.mark.parametrize(("seconds", "rate"), [(1.0, RATE), (0.5, 22050), (5.9440181, RATE)])
def test_length_is_exact_to_the_sample(seconds, rate):
    clip = render(score(KICKS), FONT, rate, seconds)
    assert (clip.shape, clip.dtype) == ((2, round(seconds * rate)), np.float32)
    assert np.abs(clip).max() > 0.01


@needs_soundfont
def test_without_a_length_the_last_notes_fade():
    clip = render(score(TUNE, tempo=240.0), FONT)
    assert clip.shape[1] == 4 * RATE
    assert np.abs(clip[:, -RATE // 10 :]).max() < 0.01 * np.abs(clip).max()


@needs_soundfont
def test_equal_scores_are_equal_bytes_whatever_came_before():
    """The chorus and reverb of a synthesizer that is used again would differ."""
    whole = score(KICKS, TUNE, PAD)
    first = render(whole, FONT, seconds=2.0)
    render(score(PAD, tempo=77.0), FONT, seconds=1.3)
    assert np.array_equal(render(whole, FONT, seconds=2.0), first)
    with Renderer(FONT) as renderer:
        renderer.render(score(KICKS), seconds=0.37)
        assert np.array_equal(renderer.render(whole, seconds=2.0), first)
    # A longer clip begins with the shorter one.
    assert np.array_equal(render(whole, FONT, seconds=2.5)[:, : 2 * RATE], first)


@needs_soundfont
def test_parts_add_up_to_the_whole():
    both = score(KICKS, TUNE)
    whole = render(both, FONT, seconds=2.0)
    alone = [render_part(both, one, FONT, seconds=2.0) for one in both.parts]
    # FluidSynth smooths the first samples of a note differently where other notes sound.
    assert np.abs(alone[0] + alone[1] - whole).max() < 0.01 * np.abs(whole).max()
    assert np.abs(alone[0] - whole).max() > 0.1 * np.abs(whole).max()


@needs_soundfont
def test_beats_are_where_the_drums_strike():
    """Onsets of a kick drum: the first samples above a tenth of its peak, 10 ms allowed."""
    for tempo in (93.0, 120.0, 164.0):
        clip = np.abs(render(score(KICKS, tempo=tempo), FONT)).max(axis=0)
        for beat in range(8):
            start = round(beat * 60 / tempo * RATE)
            assert np.argmax(clip[start:] > 0.1 * clip.max()) < 0.01 * RATE
            if beat:
                assert clip[start - 200 : start - 32].max() < 0.1 * clip.max()


@needs_soundfont
def test_events_hit_the_nearest_block():
    onsets = []
    for shift in range(0, 129, 16):
        late = part("drums", 0, "drums", Note(0.1 + shift / (RATE * 60 / 120), 0.2, 37, 120))
        clip = np.abs(render(score(late), FONT, seconds=0.5)).max(axis=0)
        onsets.append(int(np.argmax(clip > 1e-4)) - shift)
    assert max(onsets) - min(onsets) <= 64


@needs_soundfont
@pytest.mark.parametrize("tempo", [84.0, 120.0, 151.0])
def test_onset_strength_peaks_at_the_labelled_beats(tempo):
    steady = score(KICKS, tempo=tempo)
    clip = render(steady, FONT, seconds=steady.seconds)
    frames = np.lib.stride_tricks.sliding_window_view(clip.mean(axis=0), 1024)[::256]
    spectrum = np.log1p(100 * np.abs(np.fft.rfft(frames * np.hanning(1024))))
    strength = np.maximum(np.diff(spectrum, axis=0), 0).sum(axis=1)  # spectral flux
    times = (np.arange(len(strength)) * 256 + 256 + 512) / RATE  # a frame's middle
    beats = np.array(labels_from_score(steady).beats)
    assert len(beats) == 8
    near = np.abs(times[:, None] - beats[None]).min(axis=1) < 0.025
    assert strength[near].mean() > 5 * strength[~near].mean()
    late = np.abs(times[:, None] - beats[None] - 0.1).min(axis=1) < 0.025  # wrong labels do worse
    assert strength[near].mean() > 5 * strength[late].mean()


def pitch_of(piece: np.ndarray) -> float:
    """MIDI pitch of a steady tone between 220 and 1760 Hz: the lag that it resembles most."""
    spectrum = np.abs(np.fft.rfft(piece * np.hanning(len(piece)), 4 * len(piece))) ** 2
    likeness = np.fft.irfft(spectrum)
    lags = np.arange(RATE // 1760, RATE // 220)
    best = lags[np.argmax(likeness[lags])]
    # The top of the parabola through three lags.
    before, at, after = likeness[best - 1 : best + 2]
    lag = best + 0.5 * (before - after) / (before - 2 * at + after)
    return 69 + 12 * np.log2(RATE / lag / 440)


@needs_soundfont
def test_the_melody_is_heard_at_its_pitches():
    clip = render(score(TUNE), FONT, seconds=4.0).mean(axis=0)
    notes = labels_from_score(score(TUNE)).melody
    assert len(notes) == 4
    for start, end, pitch in notes:
        times = np.arange(start + 0.2, end - 0.1, 0.05)
        held = [pitch_of(clip[round(t * RATE) : round(t * RATE) + 2048]) for t in times]
        assert np.median(held) == pytest.approx(pitch, abs=0.25)


@needs_soundfont
def test_pan_volume_and_reverb():
    def energy(**changes: float) -> np.ndarray:
        changed = dataclasses.replace(TUNE, **changes)
        return np.square(render(score(changed), FONT, seconds=2.0)).sum(axis=1)

    left, right = energy(pan=-1.0), energy(pan=1.0)
    assert left[0] > 2 * left[1]  # the soundfont's own reverb and chorus are on both sides
    assert right[1] > 2 * right[0]
    assert energy(volume=0.4).sum() < 0.5 * energy(volume=0.9).sum()
    assert not np.array_equal(energy(reverb=0.0), energy(reverb=1.0))


@needs_soundfont
@pytest.mark.parametrize("program", [51, 81, 89, 95])  # strings, a lead, pads: with an offset each
def test_nothing_is_left_below_what_is_heard(program, monkeypatch):
    held = part("synth pad", program, "pad", Note(0.0, 8.0, 57, 80), Note(0.0, 8.0, 64, 80))

    def share_below(hertz: float) -> float:
        clip = render(score(held), FONT, seconds=4.0).mean(axis=0)
        power = np.abs(np.fft.rfft(clip)) ** 2
        return power[np.fft.rfftfreq(len(clip), 1 / RATE) < hertz].sum() / power.sum()

    assert share_below(20.0) < 1e-3
    monkeypatch.setattr(module, "_without_offset", lambda samples, rate: samples)
    assert share_below(20.0) > 0.1  # as the soundfont has it


@pytest.mark.parametrize("rate", [RATE, 22050])
def test_what_is_heard_stays(rate):
    """Of sinusoids there is left what Butterworth's formula says, and of an offset nothing."""
    times = np.arange(4 * rate) / rate
    for hertz in (10.0, 20.0, 41.2, 110.0, 1000.0):
        tone = np.stack([np.sin(2 * np.pi * hertz * times), np.full(len(times), 0.5)])
        left, offset = module._without_offset(tone.astype(np.float32), rate)[:, 2 * rate :]
        wanted = 1 / np.sqrt(1 + (20.0 / hertz) ** 8)
        assert np.sqrt(2 * np.square(left).mean()) == pytest.approx(wanted, rel=0.01)
        assert np.abs(offset).max() < 1e-4


@needs_soundfont
def test_drums_use_the_drum_bank():
    clip = render(score(KICKS), FONT, seconds=1.0)
    as_piano = render(score(dataclasses.replace(KICKS, role="bass")), FONT, seconds=1.0)
    assert not np.allclose(clip, as_piano, atol=1e-3)


# Sounds


@needs_soundfont
def test_sounds_are_what_their_seed_says():
    captions = set()
    for index in range(30):
        made = sound(f"7/{index}")
        captions.add(made.captions[0])
        assert made == sound(f"7/{index}")
        assert 0.5 < made.seconds <= 16
        assert len(set(made.captions)) == len(made.captions)
        if index < 6:
            clip = made.samples(FONT)
            assert clip.shape == (2, round(made.seconds * RATE))
            assert np.array_equal(clip, made.samples(FONT))
            assert 0.01 < np.abs(clip).max() <= 1.0, made.captions
    assert len(captions) > 15


@pytest.mark.parametrize("number", range(len(COMPUTED)))
def test_computed_sounds_are_sound(number):
    source, shortest, _, _ = COMPUTED[number]
    for seed in range(2):
        clip = source(np.random.default_rng(seed), shortest, RATE)
        assert clip.shape == (2, round(shortest * RATE))
        assert np.isfinite(clip).all()
        assert 0.1 < np.abs(clip).max() < 2.5


def test_a_rising_sweep_rises():
    for source, up in ((COMPUTED[0][0], True), (COMPUTED[1][0], False)):
        clip = source(np.random.default_rng(0), 3.0, RATE)[0]
        hertz = np.fft.rfftfreq(RATE // 2, 1 / RATE)
        spectra = [np.abs(np.fft.rfft(part)) for part in (clip[: RATE // 2], clip[-RATE // 2 :])]
        early, late = (hertz @ spectrum / spectrum.sum() for spectrum in spectra)
        assert (late > 3 * early) if up else (early > 3 * late)


# What can go wrong


def test_soundfonts_that_are_none(tmp_path, monkeypatch):
    (tmp_path / "text.sf2").write_text("not a soundfont at all")
    (tmp_path / "empty.sf2").touch()
    for name, complaint in (
        ("text.sf2", "is not a soundfont"),
        ("empty.sf2", "is not a soundfont"),
        ("missing.sf2", "there is no soundfont .*fluid-soundfont-gm"),
        (".", "cannot read the soundfont"),
    ):
        with pytest.raises(UserError, match=complaint) as error:
            render(score(KICKS), tmp_path / name)
        assert "\n" not in str(error.value)
    monkeypatch.setattr(module, "SOUNDFONTS", (tmp_path / "nowhere.sf2",))
    with pytest.raises(UserError, match="install Debian's fluid-soundfont-gm or pass --soundfont"):
        find_soundfont()


@needs_soundfont
def test_a_broken_soundfont_is_told(tmp_path, capfd):
    content = FONT.read_bytes()[:100_000]
    (tmp_path / "cut.sf2").write_bytes(content)
    with pytest.raises(UserError, match="is cut short"):
        Renderer(tmp_path / "cut.sf2")
    assert capfd.readouterr() == ("", "")
    (tmp_path / "broken.sf2").write_bytes(content[:4] + struct.pack("<I", 99_992) + content[8:])
    with pytest.raises(UserError, match="is a broken soundfont"):
        Renderer(tmp_path / "broken.sf2")


def test_a_missing_library_names_its_package(tmp_path, monkeypatch, request):
    """As pyfluidsynth does where there is no libfluidsynth, and where it is not there itself."""
    request.addfinalizer(module._library.cache_clear)
    (tmp_path / "fake.sf2").write_bytes(b"RIFF\0\0\0\0sfbk")
    (tmp_path / "fluidsynth.py").write_text("raise ImportError('no library')")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "fluidsynth", raising=False)
    module._library.cache_clear()
    with pytest.raises(UserError, match="apt-get install fluidsynth"):
        Renderer(tmp_path / "fake.sf2")
    monkeypatch.setitem(sys.modules, "fluidsynth", None)
    with pytest.raises(UserError, match="pip install"):
        Renderer(tmp_path / "fake.sf2")


@needs_soundfont
def test_nothing_is_printed():
    """On CI machines pyfluidsynth would print where it found the library, into our output."""
    code = f"from audiodiff.render import *; Renderer(Path({str(FONT)!r})).close()"
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | {"CI": "1"}, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
