"""Single sounds cut out of clips."""

import numpy as np
import pytest

from audiodiff.one_shots import one_shot, onset

RATE = 44100


def hit(at: float, seconds: float, decay: float) -> np.ndarray:
    """A tone (2 s) that is struck at ``at`` seconds and falls by e in ``decay`` seconds."""
    time = np.arange(round(seconds * RATE)) / RATE - at
    wave = np.where(time >= 0, np.exp(-np.maximum(time, 0) / decay) * np.cos(5000 * time), 0)
    return np.stack([0.4 * wave, 0.2 * wave])


def test_a_sound_is_cut_where_it_begins_and_where_it_ends():
    whole = hit(0.3, 2.0, 0.05)
    assert onset(whole, RATE) == pytest.approx(0.3 * RATE, abs=1)
    cut = one_shot(whole, RATE)
    assert np.abs(cut).max() == pytest.approx(1) and cut.dtype == np.float32
    assert cut[1] == pytest.approx(cut[0] / 2, abs=1e-6)
    # e to the -5.76 is 50 dB; what is kept ahead is 2 ms.
    assert cut.shape[1] / RATE == pytest.approx(0.002 + 5.76 * 0.05, abs=0.005)
    assert np.abs(cut[:, -1]).max() < 1e-6 and np.abs(cut[:, 0]).max() < 1e-6


def test_a_long_sound_fades_out_where_it_must():
    cut = one_shot(hit(0.0, 2.0, 5.0), RATE, most=0.5)
    assert cut.shape[1] == round(0.5 * RATE)
    assert np.abs(cut[:, -1]).max() < 1e-6


def test_silence_stays_as_it_is():
    assert np.array_equal(one_shot(np.zeros((2, 100)), RATE), np.zeros((2, 100)))
    assert onset(np.zeros((2, 100)), RATE) == 0
