"""The comb that finds tempi, and how it is learnt."""

import json

import numpy as np
import pytest
from scipy import optimize

from audiodiff import tempo_fit
from audiodiff.audio_file import write_audio
from audiodiff.labels import SAMPLE_RATE
from audiodiff.tempo import COMB, lag_values, onset_tempo, same_tempo


def test_a_learnt_comb_finds_tempi_that_it_never_saw() -> None:
    made = tempo_fit.make_patterns(120)
    values, true = made["patterns of 6 s"]
    weights = tempo_fit.fit_comb(values[:60], true[:60])
    octave, exact = tempo_fit.shares_right(values[60:], true[60:], weights)
    assert octave >= 0.9 and exact >= 0.7
    swapped, _ = tempo_fit.shares_right(values[60:], np.roll(true[60:], 1), weights)
    assert swapped < 0.4
    for lag, most in tempo_fit.MOST.items():
        assert weights[list(COMB).index(lag)] <= most
    # The carried comb has seen composed music too, and knows these nevertheless.
    carried, _ = tempo_fit.shares_right(values, true, np.array(list(COMB.values())))
    assert carried >= 0.9


def test_the_likelihood_is_greatest_where_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    values, true = tempo_fit.make_patterns(20)["patterns of 16 s"]
    kept, library = {}, optimize.minimize

    def minimize(loss, start, **how):
        kept["loss"] = loss
        return library(loss, start, **how)

    monkeypatch.setattr(tempo_fit.optimize, "minimize", minimize)
    weights = tempo_fit.fit_comb(values, true)
    loss, slope = kept["loss"](weights)
    step = 1e-4
    for number, lag in enumerate(COMB):
        moved = weights.copy()
        moved[number] += step
        numeric = (kept["loss"](moved)[0] - loss) / step
        assert slope[number] == pytest.approx(numeric, abs=2e-3)
        if lag not in tempo_fit.MOST:
            assert abs(slope[number]) < 2e-3


@pytest.mark.parametrize("group", [(1.0,), (1.0, 0.6), (1.0, 0.5, 0.5), (1.0, 0.4, 0.7, 0.4)])
@pytest.mark.parametrize("bpm", [84, 96, 120, 132])
def test_accented_beats_are_beats(bpm: float, group: tuple[float, ...]) -> None:
    onsets = np.zeros(1001)
    for number, time in enumerate(np.arange(0.2, 10, 60 / bpm)):
        onsets[round(time * 100)] += group[number % len(group)]
    assert same_tempo(onset_tempo(onsets), bpm, octaves=True, tolerance=0.02)
    if len(group) == 1:
        assert same_tempo(onset_tempo(onsets), bpm, octaves=False, tolerance=0.02)


def test_what_repeats_exactly_correlates_with_itself() -> None:
    onsets = np.zeros(1201)
    onsets[::50] = 1  # 120 beats a minute
    values = lag_values(onsets)
    beat = values[:, 304]  # of 481 tempi from 50 to 200: 120.1
    whole = [int(lag) == lag for lag in COMB]
    assert beat[whole].min() > 0.8 and beat[~np.array(whole)].max() < 0.2


def test_from_the_command_line(tmp_path, capsys) -> None:
    rows = []
    for number, bpm in enumerate((90, 100, 110, 120, 125, 130)):
        time = np.arange(17 * SAMPLE_RATE) / SAMPLE_RATE
        since = (time - 0.2) % (60 / bpm)
        sound = (0.3 * np.exp(-20 * since) * np.sin(2 * np.pi * 300 * time)).astype(np.float32)
        write_audio(tmp_path / f"{number}.wav", np.stack([sound, sound]), SAMPLE_RATE)
        rows.append({"file_name": f"{number}.wav", "text": "beats", "tempo": float(bpm)})
    rows.append(rows[-1] | {"tempo": 240.0})
    metadata = "".join(json.dumps(row) + "\n" for row in rows)
    (tmp_path / "metadata.jsonl").write_text(metadata, encoding="utf-8")
    tempo_fit.main(["--data", str(tmp_path), "--clips", "6"])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(COMB) + 4
    assert lines[len(COMB)].startswith("clips of 6 s: 1.000 right or an octave off")
    with pytest.raises(SystemExit, match="only 6 clips state a tempo from 50 to 200; 7 are"):
        tempo_fit.main(["--data", str(tmp_path), "--clips", "7"])
