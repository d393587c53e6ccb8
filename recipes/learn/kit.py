"""What the recipes here have in common: their options, the training loop, and how they end."""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor, nn

from shared.conditioning import Conditioning
from shared.denoiser import Denoiser
from shared.errors import UserError
from shared.files import check_writable, output_paths, whole_file
from shared.noise import seeded_noise
from shared.training import LOG, Draw, LoopConfig, MakeBatch, train

Figures = dict[str, float]
"""What a recipe measured, name -> number."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """What the command line of every recipe says.

    Attributes:
        name: the recipe's.
        out: the PNG file to write.
        runs: the folder where trained networks are kept; a second run finds them there.
        seed: of the samples; training has seed 0.
        quick: a minute's work in a second, for the tests: the picture will be poor.
        data, download: see :func:`pictures.load_pictures`; for recipes that learn from pictures.
    """

    name: str
    out: Path
    runs: Path
    seed: int
    quick: bool
    data: Path | None
    download: bool


def read_options(file: str, doc: str | None, argv: Sequence[str] | None, data: bool) -> Options:
    """The options of the recipe in ``file``; ``data`` adds those of the pictures to learn from.

    Raises:
        UserError: the picture's file exists without ``--overwrite``, or cannot be written.
    """
    name = Path(file).stem
    parser = argparse.ArgumentParser(description=(doc or "").splitlines()[0])
    parser.add_argument("--out", type=Path, help=f"PNG file (default: RUNS/{name}.png)")
    parser.add_argument("--runs", type=Path, default=Path("runs/learn"), help="trained networks")
    parser.add_argument("--seed", type=int, default=0, help="of the samples")
    parser.add_argument("--overwrite", action="store_true", help="replace the PNG file")
    parser.add_argument("--quick", action="store_true", help="a moment's training; a poor picture")
    if data:
        parser.add_argument("--data", type=Path, help="folder of Fashion-MNIST's idx files")
        parser.add_argument("--download", action="store_true", help="fetch them into --data first")
    given = parser.parse_args(argv)
    given.runs.mkdir(parents=True, exist_ok=True)
    check_writable(given.runs)
    out = given.out or given.runs / f"{name}.png"
    (out,) = output_paths(out, [name], [""], [".png"], given.overwrite)
    return Options(
        name=name,
        out=out,
        runs=given.runs,
        seed=given.seed,
        quick=given.quick,
        data=given.data if data else None,
        download=given.download if data else False,
    )


def fit(
    objective: nn.Module,
    batches: MakeBatch,
    count: int,
    options: Options,
    name: str,
    steps: int,
    batch_size: int = 32,
    quick_steps: int = 8,
) -> tuple[nn.Module, Figures]:
    """The objective trained (:func:`shared.training.train`), or found trained under that name.

    Args:
        count: items in the data.
        steps, batch_size: of the training; ``--quick`` takes ``quick_steps`` steps.

    Returns:
        It, with averaged weights, and its mean loss at the beginning and at the end.
    """
    steps = quick_steps if options.quick else steps
    config = LoopConfig(
        steps=steps,
        batch_size=batch_size,
        learning_rate=3e-3,
        warmup=min(50, steps // 4),
        anneal_from=0.3,
        ema_decay=0.99,
        mixed_precision="no",
        log_every=max(1, steps // 12),
        checkpoint_every=0,
        sample_every=0,
    )
    folder = options.runs / (f"{name}-quick" if options.quick else name)
    trained = train(objective, batches, count, config, folder, resume=True)
    log = [json.loads(line) for line in (folder / LOG).read_text(encoding="utf-8").splitlines()]
    return trained, {"first loss": log[0]["loss"], "last loss": log[-1]["loss"]}


class DenoiserObjective(nn.Module):
    """L_simple: the denoiser's loss, with labels as one token of context where there are any."""

    def __init__(self, denoiser: Denoiser) -> None:
        super().__init__()
        self.denoiser = denoiser

    def forward(
        self, x0: Tensor, noise: Tensor, sigma: Tensor, context: Tensor | None = None
    ) -> Tensor:
        """x0, noise (b c h w), sigma (b,), context (b 1 d) -> loss (b,)"""
        return self.denoiser.loss(x0, noise, sigma, Conditioning(context=context))


def noisy_batches(
    x0: Tensor, levels: Tensor, context: Callable[[Tensor, Tensor], Tensor] | None = None
) -> MakeBatch:
    """Batches for :class:`DenoiserObjective`: samples, noise, and one of the levels for each.

    Args:
        x0: (n c h w) the data.
        levels: (m,) noise levels, each as likely as any other.
        context: (indices (b,), uniform random numbers (b,)) -> (b 1 d), what the network is told.
    """

    def make(draws: Sequence[Draw]) -> tuple[Tensor, ...]:
        index = torch.tensor([draw.index for draw in draws])
        seeds = [draw.seed for draw in draws]
        # A second stream for the scalars: the first one's start is the noise itself.
        generators = [torch.Generator().manual_seed(seed ^ 0x5EED) for seed in seeds]
        level, choice = torch.stack([torch.rand(2, generator=g) for g in generators]).unbind(1)
        sigma = levels[(level * len(levels)).long()].float()
        batch = (x0[index], seeded_noise(seeds, x0.shape[1:]), sigma)
        return batch if context is None else (*batch, context(index, choice))

    return make


def items_and_noise(items: Tensor, shape: Sequence[int]) -> MakeBatch:
    """Batches of items (b ...) and standard normal noise (b *shape): what an autoencoder takes."""

    def make(draws: Sequence[Draw]) -> tuple[Tensor, ...]:
        index = torch.tensor([draw.index for draw in draws])
        return items[index], seeded_noise([draw.seed for draw in draws], shape)

    return make


def finish(options: Options, picture: Image.Image, figures: Figures, colours: int = 32) -> Figures:
    """Write the picture, tell the figures (stderr) and the picture's path (stdout)."""
    with whole_file(options.out, overwrite=True) as file:
        # A palette is enough for greys and a few colours, and a quarter of the size.
        picture.quantize(colours, dither=Image.Dither.NONE).save(file, format="PNG", optimize=True)
    for name, value in figures.items():
        print(f"{name}: {value:.4g}", file=sys.stderr)
    print(options.out)
    return figures


def run(main: Callable[[], Figures]) -> None:
    """Run a recipe's ``main``; bad input ends it with one line and exit code 2."""
    try:
        main()
    except UserError as error:
        print(f"{Path(sys.argv[0]).name}: {error}", file=sys.stderr)
        sys.exit(2)
