import io
import json

import numpy as np
import pytest
import soundfile

from audiodiff.audio_file import (
    FORMATS,
    Tags,
    read_audio,
    read_parameters,
    read_record,
    resample,
    to_16_bit,
    write_audio,
)
from shared.errors import UserError

RATE = 44100
RECORD = json.dumps({"prompt": "a “slow” wältz, 音楽 🎻", "bpm": 80.5, "none": None})
UNICODE_RECORD = json.dumps({"prompt": "音楽 🎻"}, ensure_ascii=False)
PARAMETERS = "a “slow” wältz, 音楽 🎻\nNegative prompt: noise\nSteps: 25, Seed: 3"
SUFFIXES = list(FORMATS)


@pytest.fixture(scope="module")
def samples() -> np.ndarray:
    """Two seconds of two tones, 440 Hz left and 660 Hz right, not a whole number of mp3 frames."""
    time = np.arange(2 * RATE + 17) / RATE
    return np.stack([np.sin(2 * np.pi * f * time) * 0.5 for f in (440, 660)]).astype(np.float32)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_samples_and_records_come_back(tmp_path, samples, suffix):
    path = tmp_path / f"clip{suffix}"
    write_audio(path, samples, RATE, Tags(RECORD, PARAMETERS))
    again, rate = read_audio(path)
    assert (rate, again.shape, again.dtype) == (RATE, samples.shape, np.float32)
    if FORMATS[suffix].bits == 16:
        assert np.array_equal(again * 32768, to_16_bit(samples))
        assert np.abs(again - samples).max() <= 2**-16
    else:
        inner = slice(2000, -2000)
        assert np.abs(again - samples)[:, inner].max() < 0.02
    assert read_record(path) == RECORD
    assert read_parameters(path) == PARAMETERS
    write_audio(path, samples, RATE, Tags(UNICODE_RECORD, PARAMETERS), overwrite=True)
    assert read_record(path) == UNICODE_RECORD


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_equal_clips_are_equal_bytes(tmp_path, samples, suffix):
    first, second = tmp_path / f"a{suffix}", tmp_path / f"b{suffix}"
    for path in (first, second):
        write_audio(path, samples, RATE, Tags(RECORD, PARAMETERS))
    assert first.read_bytes() == second.read_bytes()


@pytest.mark.parametrize("suffix", [".wav", ".flac"])
def test_16_bits_are_exact_to_the_ends_of_the_scale(tmp_path, suffix):
    every = np.arange(-32768, 32768, dtype=np.int16)[None]
    write_audio(tmp_path / f"ramp{suffix}", every / np.float32(32768), RATE)
    assert np.array_equal(read_audio(tmp_path / f"ramp{suffix}")[0] * 32768, every)
    beyond = np.array([[-2.0, -1.0, 1.0, 2.0]], np.float32)
    write_audio(tmp_path / f"loud{suffix}", beyond, RATE)
    expected = [[-32768, -32768, 32767, 32767]]
    assert (read_audio(tmp_path / f"loud{suffix}")[0] * 32768).tolist() == expected


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_mono_and_one_sample(tmp_path, suffix):
    for length in (1, 500):
        path = tmp_path / f"{length}{suffix}"
        write_audio(path, np.zeros((1, length), np.float32), RATE, Tags(RECORD))
        assert read_audio(path)[0].shape == (1, length)


def test_wav_comment_stands_where_other_programs_look(tmp_path, samples):
    write_audio(tmp_path / "a.wav", samples, RATE, Tags(RECORD, PARAMETERS))
    content = (tmp_path / "a.wav").read_bytes()
    at = content.index(b"LIST")
    assert content[at + 8 : at + 16] == b"INFOICMT"
    assert soundfile.SoundFile(tmp_path / "a.wav").comment == PARAMETERS


def test_long_records(tmp_path, samples):
    long = json.dumps({"prompt": "word " * 4000})
    for suffix in SUFFIXES:
        write_audio(tmp_path / f"a{suffix}", samples, RATE, Tags(long, "word " * 4000))
        assert read_record(tmp_path / f"a{suffix}") == long
        assert read_parameters(tmp_path / f"a{suffix}") == "word " * 4000
        assert read_audio(tmp_path / f"a{suffix}")[0].shape == samples.shape


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_files_without_a_record(tmp_path, samples, suffix):
    write_audio(tmp_path / f"a{suffix}", samples, RATE)
    assert read_record(tmp_path / f"a{suffix}") is None
    assert read_parameters(tmp_path / f"a{suffix}") is None


def test_nothing_is_overwritten_unasked_and_nothing_half_written(tmp_path, samples):
    path = tmp_path / "a.wav"
    write_audio(path, samples, RATE)
    before = path.read_bytes()
    with pytest.raises(UserError, match="--overwrite"):
        write_audio(path, samples[:, :100], RATE)
    assert path.read_bytes() == before
    for name, rate, complaint in (
        ("b.mp3", 96000, "at 96000 Hz"),
        ("b.aac", RATE, "choose one of: .wav, .flac, .mp3, .ogg"),
    ):
        with pytest.raises(UserError, match=complaint):
            write_audio(tmp_path / name, samples, rate)
    with pytest.raises(ValueError, match="finite"):
        write_audio(tmp_path / "c.wav", samples * np.nan, RATE)
    assert [child.name for child in tmp_path.iterdir()] == ["a.wav"]


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("kept", [0.01, 0.5, 0.97])
def test_truncated_files_are_refused(tmp_path, samples, suffix, kept):
    write_audio(tmp_path / f"a{suffix}", samples, RATE)
    content = (tmp_path / f"a{suffix}").read_bytes()
    (tmp_path / f"cut{suffix}").write_bytes(content[: int(len(content) * kept)])
    with pytest.raises(UserError, match=r"is damaged|not an audio file"):
        read_audio(tmp_path / f"cut{suffix}")


def test_files_that_are_not_audio(tmp_path):
    (tmp_path / "empty.wav").touch()
    (tmp_path / "text.flac").write_text("la la la " * 50)
    (tmp_path / "folder.mp3").mkdir()
    silent = io.BytesIO()
    soundfile.write(silent, np.zeros((0, 2)), RATE, format="WAV")
    (tmp_path / "nothing.wav").write_bytes(silent.getvalue())
    for name, complaint in (
        ("empty.wav", "not an audio file"),
        ("text.flac", "not an audio file"),
        ("folder.mp3", "is a folder"),
        ("missing.ogg", "there is no file"),
        ("nothing.wav", "without any sound"),
    ):
        with pytest.raises(UserError, match=complaint) as error:
            read_audio(tmp_path / name)
        assert "\n" not in str(error.value)
        if name != "nothing.wav":
            with pytest.raises(UserError, match=complaint):
                read_record(tmp_path / name)


@pytest.mark.parametrize("rate", [22050, 32000, 44100, 48000, 44101])
def test_resampling_keeps_length_and_pitch(samples, rate):
    there = resample(samples, RATE, rate)
    assert there.shape == (2, round(samples.shape[1] * rate / RATE))
    assert there.dtype == np.float32
    time = np.arange(there.shape[1]) / rate
    expected = np.stack([np.sin(2 * np.pi * f * time) * 0.5 for f in (440, 660)])
    assert np.abs(there - expected)[:, 1000:-1000].max() < 1e-3


def test_reading_at_another_rate(tmp_path, samples):
    write_audio(tmp_path / "a.flac", samples, RATE)
    there, rate = read_audio(tmp_path / "a.flac", 22050)
    assert (rate, there.shape[1]) == (22050, round(samples.shape[1] / 2))
    for bad in (0, -5, 10**9):
        with pytest.raises(UserError, match="sample rate"):
            read_audio(tmp_path / "a.flac", bad)
