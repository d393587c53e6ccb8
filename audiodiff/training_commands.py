"""The commands that make clips to train on, and train; nothing heavy is imported before."""

from contextlib import ExitStack
from pathlib import Path

import click

from shared.console import FILE, advance, progress, workers_option


@click.command("music")
@click.option("--out", type=FILE, required=True, help="Folder to write.")
@click.option("--hours", type=float, required=True, help="Hours of music in the end.")
@click.option("--soundfont", type=FILE, help="A .sf2 file; by default FluidR3 GM of the system.")
@click.option("--seed", default=0, show_default=True, help="Which series of pieces.")
@click.option("--seconds", default=16.0, show_default=True, help="Length of a clip.")
@click.option(
    "--alone", default=0.0, show_default=True, help="Share of it with one or two instruments left."
)
@workers_option
def data_music(
    out: Path,
    hours: float,
    soundfont: Path | None,
    seed: int,
    seconds: float,
    alone: float,
    workers: int,
) -> None:
    """Compose and render captioned clips into a folder with metadata.jsonl."""
    from audiodiff.corpus import write_corpus

    with ExitStack() as stack:
        bars = []  # drawn when there is something to count

        def report(done: int, count: int) -> None:
            if not bars:
                bars.append(stack.enter_context(progress(count, "clip")))
            advance(bars[0], done)

        write_corpus(
            out,
            hours,
            soundfont,
            seed=seed,
            seconds=seconds,
            alone=alone,
            progress=report,
            workers=workers,
        )
    click.echo(out)


def train_vae(config: Path, data: Path, out: Path, resume: bool) -> None:
    """Train an autoencoder: spectrograms to latents and back."""
    from audiodiff.train_vae import train_vae

    train_vae(config, data, out, resume)


def train_vocoder(config: Path, data: Path, out: Path, resume: bool) -> None:
    """Train a vocoder: spectrograms to samples."""
    from audiodiff.train_vocoder import train_vocoder

    train_vocoder(config, data, out, resume)


def train_diffusion(config: Path, data: Path, out: Path, resume: bool) -> None:
    """Train a text-to-music denoiser in an autoencoder's latents."""
    from audiodiff.train_diffusion import train_diffusion

    train_diffusion(config, data, out, resume)
