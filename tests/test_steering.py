"""Holding controls by gradient: losses that know what is missing, and steps that stop cleanly."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from audiodiff import MusicPipeline
from audiodiff import steering_losses as losses
from audiodiff import steering_rhythm as rhythms
from audiodiff.bars import BASS
from audiodiff.inputs.timbre import heard_by
from audiodiff.sketch import Chords, Curve, Melody, Part, Rhythm, Sketch, Timbre
from audiodiff.sound_curves import band_hz
from audiodiff.spectrogram import FrontEnd, StereoMel, unpack, waveform_to_mel
from audiodiff.steering import FURTHEST, Term, finite, shortfall, steering
from shared.errors import DivergenceError, UserError
from shared.guidance import normalised_step

FRONT_END = FrontEnd()
FRAMES = 16  # latent; eight times as many of the spectrogram
STEPS = 8 * FRAMES


def stereo(level: Tensor, width: float = 0.0) -> StereoMel:
    half = torch.zeros(1, FRONT_END.n_mels // 2, level.shape[-1])
    return StereoMel(level, half, half + width)


def tone(*pitches: int) -> Tensor:
    """Levels (1 f t) of harmonics of MIDI pitches, in the nearest bands."""
    level = torch.full((1, FRONT_END.n_mels, STEPS), 1e-5)
    for pitch in pitches:
        for number in range(1, 6):
            hz = 440 * 2 ** ((pitch - 69) / 12) * number
            level[:, int((band_hz(FRONT_END) - hz).abs().argmin())] += 0.1 / number
    return level


def test_a_melody_s_loss_is_least_at_its_pitch_class() -> None:
    loss = losses.melody_loss(Melody(notes=((0, 2, 64),)), FRAMES, FRONT_END)
    values = {pitch: loss(stereo(tone(pitch))).item() for pitch in range(60, 72)}
    assert min(values, key=values.__getitem__) == 64
    assert loss(stereo(tone(76))).item() < min(v for p, v in values.items() if p != 64)


def test_a_chord_s_loss_is_least_on_its_notes() -> None:
    loss = losses.chords_loss(Chords(spans=((0, 2, "Am"),)), FRAMES, FRONT_END)
    right, other = loss(stereo(tone(57, 60, 64))), loss(stereo(tone(58, 62, 65)))
    assert right < other - 0.5


def test_strokes_are_wanted_where_they_were_given() -> None:
    rate = FRONT_END.sample_rate / FRONT_END.hop_length
    strokes = tuple((step + 0.5) / rate for step in (32, 64, 96))
    rhythm = Rhythm(beats=(0, 0.5), downbeats=(0,), strokes=strokes)
    loss = rhythms.rhythm_loss(rhythm, FRAMES, FRONT_END)

    def struck(*steps: int) -> StereoMel:
        level = torch.full((1, FRONT_END.n_mels, STEPS), 1e-5)
        for step in steps:
            level[..., step : step + 8] = 0.1
        return stereo(level)

    assert loss(struck(32, 64, 96)).item() == pytest.approx(0, abs=0.05)
    assert loss(struck(32, 64, 80)).item() == pytest.approx(math.log(1.5), abs=0.1)


def clicks(at: dict[float, float], low: dict[float, float]) -> StereoMel:
    """Strokes at seconds -> level, in all bands above the bass and in the bass."""
    rate = FRONT_END.sample_rate / FRONT_END.hop_length
    level = torch.full((1, FRONT_END.n_mels, STEPS), 1e-5)
    bass = band_hz(FRONT_END) < BASS
    for bands, strokes in ((~bass, at), (bass, low)):
        for time, loudness in strokes.items():
            step = round(time * rate)
            level[:, bands, step : step + 8] = loudness
    return stereo(level)


def test_beats_are_wanted_no_more_than_they_can_be_found() -> None:
    beats = (0.1, 0.4, 0.7, 1.0, 1.3)
    rhythm = Rhythm(beats=beats, downbeats=beats[:1])
    loss = rhythms.beats_loss(rhythm, FRAMES, FRONT_END)
    off = [time + 0.15 for time in beats[:-1]]
    between = dict.fromkeys(off, 0.01)
    on = dict.fromkeys(beats, 0.1)
    assert loss(clicks(on, {})).item() == 0
    assert loss(clicks(on | between, {})).item() == 0  # off-beats may be there
    assert loss(clicks(dict.fromkeys(off, 0.1), {})).item() > 1
    level = clicks(on | between, {}).level.requires_grad_()
    (slope,) = torch.autograd.grad(loss(stereo(level)).sum(), level)
    assert not slope.any()  # and nothing pulls at them


def test_bars_are_wanted_where_the_bass_and_chords_begin() -> None:
    beats = tuple(0.1 + 0.2 * number for number in range(7))
    on = dict.fromkeys(beats, 0.1)
    values = {
        first: rhythms.bars_loss(Rhythm(beats=beats, downbeats=beats[first::3]), FRAMES, FRONT_END)
        for first in range(3)
    }
    found = clicks(on, dict.fromkeys(beats[1::3], 0.1))
    losses = {first: loss(found).item() for first, loss in values.items() if loss}
    assert losses[1] == 0 and losses[0] > 0.5 and losses[2] > 0.5
    # A chord that changes tells as well.
    level = clicks(on, {}).level * 0 + 1e-5
    hz = band_hz(FRONT_END)
    rate = FRONT_END.sample_rate / FRONT_END.hop_length
    for number, time in enumerate(beats):
        pitch = (220.0, 311.1)[(number + 1) // 3 % 2]
        band = int((hz - pitch).abs().argmin())
        level[:, band, round(time * rate) :] = 1e-5
        level[:, band, round(time * rate) : round((time + 0.2) * rate)] = 0.1
    losses = {first: loss(stereo(level)).item() for first, loss in values.items() if loss}
    assert min(losses, key=losses.__getitem__) == 2


def test_bars_that_cannot_be_told_apart_are_not_asked_for() -> None:
    beats = (0.1, 0.4, 0.7)
    for rhythm in (
        Rhythm(beats=beats, downbeats=beats[:1]),  # less than a bar
        Rhythm(beats=beats, downbeats=beats),  # every beat is one
        Rhythm(beats=beats, downbeats=()),
    ):
        assert rhythms.bars_loss(rhythm, FRAMES, FRONT_END) is None


def test_curves_are_reached_at_what_they_ask_for() -> None:
    level = torch.full((1, FRONT_END.n_mels, STEPS), 0.1)
    width = Curve(points=((0, 0.3),))
    for name, curve, at in (("stereo_width", width, 0.3), ("brightness", None, 0.0)):
        if curve is not None:
            loss = losses.curve_loss(name, curve, FRAMES, FRONT_END)
            assert loss(stereo(level, at)).item() < 1e-6 < 1 < loss(stereo(level, 0.7)).item()
    flat = losses.curve_loss("noisiness", Curve(points=((0, 1.0),)), FRAMES, FRONT_END)
    assert flat(stereo(tone(69))).item() > 10


def test_onsets_are_wanted_as_often_as_was_asked_for() -> None:
    def struck(each: int) -> StereoMel:
        level = torch.full((1, FRONT_END.n_mels, STEPS), 1e-5)
        for step in range(4, STEPS - 10, each):
            level[..., step : step + 8] = 0.1
        return stereo(level)

    rate = FRONT_END.sample_rate / FRONT_END.hop_length
    asked = Curve(points=((0, rate / 20),))
    loss = losses.curve_loss("onset_density", asked, FRAMES, FRONT_END)
    assert loss(struck(20)).item() < loss(struck(12)).item()
    assert loss(struck(20)).item() < loss(struck(60)).item()
    level = struck(40).level.requires_grad_()
    (slope,) = torch.autograd.grad(loss(stereo(level)).sum(), level)
    assert slope.isfinite().all() and slope.abs().max() > 0


def test_a_timbre_is_heard_in_other_bands() -> None:
    other = FrontEnd(n_mels=64)
    noise = torch.randn(1, 2, 65536, generator=torch.Generator().manual_seed(0)) / 10
    noise = noise.diff(dim=-1, prepend=noise[..., :1])  # more of what is high

    def of(front_end: FrontEnd) -> Timbre:
        level = unpack(waveform_to_mel(noise, front_end), front_end).level
        mean, spread = losses.statistics(level, front_end.log_floor)
        return Timbre(mean=tuple(mean[0].tolist()), spread=tuple(spread[0].tolist()))

    mean, spread = heard_by(of(FRONT_END), other)
    own = of(other)
    assert mean.shape == spread.shape == (64,)
    assert (mean - torch.tensor(own.mean)).abs().mean() < 0.3
    assert (mean - torch.tensor(own.mean).flip(0)).abs().mean() > 1


def test_a_span_is_all_that_counts() -> None:
    half = FRAMES * 4096 / 44100 / 2
    curve = Curve(points=((0, 0.0), (half, 0.0), (half + 0.001, 1.0)), span=(0, half - 0.6))
    loss = losses.curve_loss("stereo_width", curve, FRAMES, FRONT_END)
    assert loss(stereo(tone(69), 0.0)).item() < 1e-3


def test_timbre_is_its_own_and_no_other_s() -> None:
    def of(level: Tensor) -> Timbre:
        mean, spread = losses.statistics(level, FRONT_END.log_floor)
        return Timbre(mean=tuple(mean[0].tolist()), spread=tuple(spread[0].tolist()))

    low, high = tone(45), tone(81)
    loss = losses.timbre_loss(of(low), FRONT_END)
    assert loss(stereo(low)).item() < 1e-6 and loss(stereo(3 * low)).item() < 0.1
    assert loss(stereo(high)).item() > 0.1


# On a model


@pytest.fixture(scope="module")
def pipeline(tiny_music_model: Path) -> MusicPipeline:
    return MusicPipeline.load(tiny_music_model, "cpu")


def quiet_end(by: str, weight: float = 1.0) -> Sketch:
    return Sketch(dynamics=Curve(points=((0, -12), (1.4, -40)), by=by, weight=weight))


def test_gradients_lower_what_is_missing(
    pipeline: MusicPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    curve = Curve(points=((0, 500), (1.4, 8000)), by="gradient")
    front_end = pipeline.codec.front_end
    loss = losses.curve_loss("brightness", curve, 16, front_end)

    def missing(sketch: Sketch | None) -> float:
        found: list[Tensor] = []
        monkeypatch.setattr(
            MusicPipeline, "_clip", lambda self, settings, latents, steered: found.append(latents)
        )
        pipeline("a folk tune", seconds=1.4, steps=8, sampler="euler", sketch=sketch)
        return loss(unpack(pipeline.codec.latents_to_mel(found[0]), front_end)).item()

    assert missing(Sketch(brightness=curve)) < 0.9 * missing(None)


def test_no_move_leaves_what_latents_of_music_are(pipeline: MusicPipeline) -> None:
    curve = Curve(points=((0, 500), (1.4, 8000)), by="gradient")
    (guidance,) = steering(Sketch(brightness=curve), pipeline.codec, 16)
    denoised = torch.full((1, *pipeline.latent_shape(16)), FURTHEST)
    guided = guidance(lambda x, sigma: denoised)
    for sigma, moved in ((0.2, False), (8.0, True), (80.0, False)):
        found = guided(denoised, torch.tensor([sigma]))
        assert torch.equal(found, denoised) is not moved
        assert found.max() <= FURTHEST and found.min() >= -FURTHEST


def test_what_is_not_held_by_gradient_has_none(pipeline: MusicPipeline) -> None:
    for sketch in (None, Sketch(), quiet_end("channels"), quiet_end("gradient", 0.0)):
        assert steering(sketch, pipeline.codec, 16) == []
    bright = Curve(points=((0, 500), (1.4, 8000)), by="gradient")
    for by in ("gradient", "both"):
        assert len(steering(quiet_end(by), pipeline.codec, 16)) == 1
        both = replace(quiet_end(by), brightness=bright)
        assert len(steering(both, pipeline.codec, 16)) == 2


def test_every_loss_has_its_say_however_steep(pipeline: MusicPipeline) -> None:
    def mean(mel: StereoMel) -> Tensor:
        return mel.level.mean((1, 2))

    latents = torch.zeros(1, *pipeline.latent_shape(16), requires_grad=True)
    slopes = []
    for scale in (1.0, 1e4):
        terms = {"x": Term(lambda mel, scale=scale: scale * mean(mel), 1.0)}
        (slope,) = torch.autograd.grad(shortfall(pipeline.codec, terms, latents).sum(), latents)
        slopes.append(slope)
    torch.testing.assert_close(*slopes, rtol=1e-3, atol=0.01)


def test_a_span_without_a_beat_pulls_at_nothing(pipeline: MusicPipeline) -> None:
    latents = torch.zeros(1, *pipeline.latent_shape(16), requires_grad=True)
    rhythm = Rhythm(beats=(0.0, 0.5, 1.0), downbeats=(0.0,), span=(0.2, 0.3))
    terms = {"rhythm": Term(rhythms.rhythm_loss(rhythm, 16, pipeline.codec.front_end), 1.0)}
    (slope,) = torch.autograd.grad(shortfall(pipeline.codec, terms, latents).sum(), latents)
    assert not slope.any()


def test_a_gradient_that_diverges_is_named(pipeline: MusicPipeline) -> None:
    latents = torch.zeros(1, *pipeline.latent_shape(16), requires_grad=True)
    terms = {"brightness": Term(lambda mel: mel.level.mean((1, 2)) / 0, 1.0)}
    with pytest.raises(DivergenceError, match="the gradient of brightness diverged"):
        shortfall(pipeline.codec, terms, latents)
    step = finite(normalised_step(0.1))
    with pytest.raises(DivergenceError, match=r"diverged at noise level 2"):
        step(torch.full((1, 1, 2, 2), torch.nan), torch.tensor([2.0]))


def test_parts_that_cannot_be() -> None:
    with pytest.raises(UserError, match="0 to 10"):
        Part(weight=-1.0)
    with pytest.raises(UserError, match="FROM:TO"):
        Part(span=(3.0, 2.0))
    with pytest.raises(UserError, match="magic"):
        Part(by="magic")
