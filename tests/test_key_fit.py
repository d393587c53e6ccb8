"""The profiles that find keys, and how they are learnt."""

import json

import numpy as np
import pytest
from scipy import optimize

from audiodiff import key_fit
from audiodiff.audio_file import write_audio
from audiodiff.examples import Examples
from audiodiff.key import KEYS, PROFILES, key_scores
from audiodiff.labels import SAMPLE_RATE


def made_up(count: int) -> Examples:
    """What is heard in keys drawn by lot: their scales and triads among other notes, (n 2 12)."""
    rng = np.random.default_rng(0)
    true = rng.integers(len(KEYS), size=count)
    heard = rng.uniform(0, 1.5, size=(count, 2, 12))
    for row, number in zip(heard, true, strict=True):
        classes = np.array(KEYS[number].pitch_classes)
        row[1, classes] += 1
        row[1, classes[[0, 2, 4]]] += 1
        row[0, classes[0]] += 2
    return heard / heard.mean(axis=2, keepdims=True), true


def test_learnt_profiles_find_keys_that_they_never_saw() -> None:
    heard, true = made_up(600)
    profiles = key_fit.fit_profiles(heard[:300], true[:300])
    key, scale = key_fit.shares_right(heard[300:], true[300:], profiles)
    assert key >= 0.85 and scale >= key
    swapped, _ = key_fit.shares_right(heard[300:], np.roll(true[300:], 1), profiles)
    assert swapped < 0.15
    # Those that the package carries come from music, and know such chords nevertheless.
    carried, _ = key_fit.shares_right(heard, true, np.array(list(PROFILES.values())))
    assert carried >= 0.6


def test_a_tune_moved_up_is_in_a_key_moved_up() -> None:
    heard, _ = made_up(5)
    profiles = np.random.default_rng(1).normal(size=(2, 2, 12))
    scores = key_scores(heard, profiles).reshape(5, 2, 12)
    higher = key_scores(np.roll(heard, 3, axis=2), profiles).reshape(5, 2, 12)
    np.testing.assert_allclose(higher, np.roll(scores, 3, axis=2))


def test_the_likelihood_is_greatest_where_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    heard, true = made_up(60)
    kept, library = {}, optimize.minimize

    def minimize(loss, start, **how):
        kept["loss"] = loss
        return library(loss, start, **how)

    monkeypatch.setattr(key_fit.optimize, "minimize", minimize)
    weights = key_fit.fit_profiles(heard, true).ravel()
    assert abs(kept["loss"](weights)[1]).max() < 1e-4
    elsewhere = weights + np.random.default_rng(2).normal(size=weights.shape)
    assert optimize.check_grad(lambda w: kept["loss"](w)[0], lambda w: kept["loss"](w)[1],
                               elsewhere) < 1e-4  # fmt: skip


def test_from_the_command_line(tmp_path, capsys) -> None:
    rows = []
    time = np.arange(2 * SAMPLE_RATE) / SAMPLE_RATE
    for number in range(6):
        key = KEYS[4 * number]
        tones = [220 * 2 ** ((c - 9) % 12 / 12) for c in key.pitch_classes]
        sound = sum(np.sin(2 * np.pi * f * time) for f in tones) * np.float32(0.05)
        write_audio(tmp_path / f"{number}.wav", np.stack([sound, sound]), SAMPLE_RATE)
        rows.append({"file_name": f"{number}.wav", "text": "tones", "key": key.name})
    metadata = "".join(json.dumps(row) + "\n" for row in rows)
    (tmp_path / "metadata.jsonl").write_text(metadata, encoding="utf-8")
    key_fit.main(["--data", str(tmp_path), "--clips", "6"])
    printed = capsys.readouterr().out
    for line in ("major, bass", "major, above", "minor, bass", "minor, above", "clips of 16 s"):
        assert line in printed
    with pytest.raises(SystemExit, match="only 6 clips state a key; 7 are needed"):
        key_fit.main(["--data", str(tmp_path), "--clips", "7"])
