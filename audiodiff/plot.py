"""Spectrograms as pictures."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from audiodiff.tempo import spectra
from shared.files import whole_file

WIDTH, HEIGHT = 800, 300  # pixels of the spectrogram itself
LEFT, RIGHT, TOP, BOTTOM = 52, 16, 8, 26  # margins for the axes
LINE = 14  # height of a line of text
LOWEST, HIGHEST = 30.0, 16_000.0  # Hz
DYNAMIC_RANGE = 80.0  # dB from black to white
N_FFT = 4096  # at 44.1 kHz
OCTAVES_FROM = 31.25  # Hz; a label an octave above it, and above that, ...

# From black through violet and orange to light yellow, evenly brighter all the way, so that it also
# reads in grey: the red, green and blue of five levels, 0 to 1.
_COLOURS = np.array(
    [(0, 0, 8), (66, 15, 110), (160, 40, 100), (238, 105, 40), (252, 250, 180)], float
)


def draw_spectrogram(samples: np.ndarray, sample_rate: int, caption: str = "") -> Image.Image:
    """A recording (c, s) as a picture: time from left to right, pitch from bottom to top.

    The frequency axis is logarithmic, as hearing is; levels are relative to the loudest.
    """
    levels = log_spectrogram(samples, sample_rate)
    stops = np.linspace(0, 1, len(_COLOURS))
    channels = [np.interp(levels, stops, channel) for channel in _COLOURS.T]
    picture = Image.fromarray(np.stack(channels, -1).round().astype(np.uint8))

    lines = textwrap.wrap(caption, WIDTH // 6, max_lines=2, placeholder=" …")
    top = TOP + LINE * len(lines)
    page = Image.new("RGB", (LEFT + WIDTH + RIGHT, top + HEIGHT + BOTTOM), "white")
    page.paste(picture, (LEFT, top))
    draw = ImageDraw.Draw(page)
    font = ImageFont.load_default(size=11)
    draw.multiline_text((LEFT, TOP - 5), "\n".join(lines), "black", font, spacing=2)
    top_frequency = _highest(sample_rate)
    frequency = 2 * OCTAVES_FROM
    while frequency <= top_frequency:
        place = math.log(frequency / LOWEST) / math.log(top_frequency / LOWEST)
        y = top + round((1 - place) * (HEIGHT - 1))
        draw.line((LEFT - 4, y, LEFT - 1, y), "black")
        text = f"{frequency:g} Hz" if frequency < 1000 else f"{frequency / 1000:g} kHz"
        draw.text((LEFT - 6, y), text, "black", font, anchor="rm")
        frequency *= 2
    seconds = samples.shape[1] / sample_rate
    step = tick_step(seconds)
    for index in range(int(seconds / step + 1e-9) + 1):
        x = LEFT + round(index * step / seconds * (WIDTH - 1))
        draw.line((x, top + HEIGHT, x, top + HEIGHT + 3), "black")
        draw.text((x, top + HEIGHT + 5), f"{index * step:g} s", "black", font, anchor="ma")
    return page


def save_spectrogram(
    samples: np.ndarray, sample_rate: int, path: Path, overwrite: bool = False
) -> None:
    """Write :func:`draw_spectrogram`'s picture as a PNG, whole or not at all.

    Raises:
        UserError: ``path`` exists and ``overwrite`` is false, or it cannot be written.
    """
    picture = draw_spectrogram(samples, sample_rate)
    with whole_file(path, overwrite) as file:
        picture.save(file, format="PNG")


def stack(pictures: Sequence[Image.Image], columns: int = 1) -> Image.Image:
    """Pictures of one width, in rows of ``columns``."""
    rows = [pictures[first : first + columns] for first in range(0, len(pictures), columns)]
    heights = [max(picture.height for picture in row) for row in rows]
    width = pictures[0].width
    sheet = Image.new("RGB", (width * len(rows[0]), sum(heights)), "white")
    y = 0
    for row, height in zip(rows, heights, strict=True):
        for column, picture in enumerate(row):
            sheet.paste(picture, (column * width, y))
        y += height
    return sheet


def log_spectrogram(samples: np.ndarray, sample_rate: int) -> np.ndarray:
    """Levels (HEIGHT, WIDTH) of a recording (c, s), 0 to 1 over DYNAMIC_RANGE; low pitch last."""
    n_fft = 2 * round(N_FFT * sample_rate / 44100 / 2)
    columns = np.linspace(0, max(samples.shape[1] - 1, 0), WIDTH)
    magnitude = spectra(samples, n_fft, columns)  # (WIDTH, n_fft / 2 + 1)
    rows = np.geomspace(_highest(sample_rate), LOWEST, HEIGHT)
    places = rows * n_fft / sample_rate  # in bins
    bins = np.arange(magnitude.shape[1])
    resampled = np.stack([np.interp(places, bins, column) for column in magnitude], axis=1)
    loudest = resampled.max(initial=0)
    if loudest <= 0:
        return np.zeros((HEIGHT, WIDTH))
    decibels = 20 * np.log10(np.maximum(resampled / loudest, 1e-9))
    return np.clip(1 + decibels / DYNAMIC_RANGE, 0, 1)


def tick_step(seconds: float) -> float:
    """A round number of seconds that divides a length into at most ten parts: 1, 2 or 5 x 10^n."""
    for exponent in range(-3, 6):
        for digit in (1, 2, 5):
            step = digit * 10.0**exponent
            if seconds / step <= 10:
                return step
    return seconds


def _highest(sample_rate: int) -> float:
    return min(HIGHEST, sample_rate / 2)
