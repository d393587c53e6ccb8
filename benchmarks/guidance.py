"""What each guidance does to the carried picture model: `duotone evaluate image` once for each.

Prints the table of docs/guidance.md. The worse model of autoguidance is made here: a copy of the
model whose network has noise of a share of each tensor's spread added to its weights.
"""

import argparse
import shutil
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import shared  # noqa: F401  (lets torch be CPU-only beside other packages)
from shared.errors import UserError
from shared.naming import choose
from shared.settings import GuidanceSettings

PLAIN = GuidanceSettings()
# Name -> guidance scale and the rest; "autoguidance" gets the worse model's folder below.
SETTINGS: dict[str, tuple[float, GuidanceSettings]] = {
    "none": (1.0, PLAIN),
    "CFG 2": (2.0, PLAIN),
    "CFG 4": (4.0, PLAIN),
    "CFG 8": (8.0, PLAIN),
    "CFG 8, interval 0.2:0.8": (8.0, GuidanceSettings(interval=(0.2, 0.8))),
    "CFG 8, rescale 0.7": (8.0, GuidanceSettings(rescale=0.7)),
    "CFG++ 0.6, ddim": (1.0, GuidanceSettings(cfg_pp=0.6)),
    "PAG 2": (1.0, GuidanceSettings(pag_scale=2.0)),
    "CFG 4, PAG 2": (4.0, GuidanceSettings(pag_scale=2.0)),
    "autoguidance 2": (1.0, GuidanceSettings(autoguidance="worse")),
    "CFG 4, autoguidance 2": (4.0, GuidanceSettings(autoguidance="worse")),
}
COLUMNS = {
    "object_top1": "object, top-1",
    "background": "background",
    "recolour": "paint",
    "relation": "two objects",
    "frechet": "Fréchet distance",
    "seconds": "s a picture",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--model", default="builtin")
    parser.add_argument("--limit", type=int, default=10, help="prompts of each kind")
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--noise", type=float, default=0.1, help="of the worse model's weights")
    parser.add_argument("--only", help="some of the settings, by name, separated by semicolons")
    given = parser.parse_args()
    names = list(SETTINGS) if given.only is None else given.only.split(";")
    try:
        for name in names:
            choose("setting", name, SETTINGS)
        with tempfile.TemporaryDirectory() as folder:
            compare(names, given.model, given.limit, given.steps, given.noise, Path(folder))
    except UserError as error:
        print(f"guidance.py: {error}", file=sys.stderr)
        sys.exit(2)


def compare(
    names: list[str], model: str, limit: int, steps: int, noise: float, folder: Path
) -> None:
    """Print a row for each setting as soon as it is measured."""
    from imagediff import ImagePipeline
    from imagediff.adherence import read_evaluation
    from imagediff.evaluate import evaluate
    from imagediff.judge import load_judge

    pipeline, judge, prompts = ImagePipeline.load(model, "cpu"), load_judge(), read_evaluation()
    worse = folder / "worse"
    worsen(pipeline.folder, worse, noise)
    print(f"model {pipeline.hash}, {limit} prompts of each kind, {steps} steps, noise {noise:g}\n")
    print(f"| guidance | {' | '.join(COLUMNS.values())} |")
    print(f"|---|{'---|' * len(COLUMNS)}", flush=True)
    for name in names:
        scale, guidance = SETTINGS[name]
        if guidance.autoguidance is not None:
            guidance = replace(guidance, autoguidance=str(worse))
        report = evaluate(
            pipeline,
            judge,
            prompts,
            limit=limit,
            steps=steps,
            guidance_scale=scale,
            sampler="ddim" if guidance.cfg_pp is not None else "dpm++2m",
            guidance=guidance,
        )
        figures = report.figures
        cells = [f"{figures[key].value:.2f}" if key in figures else "-" for key in COLUMNS]
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


def worsen(model: Path, folder: Path, noise: float) -> None:
    """A copy of a model's folder whose network has noise in its weights (seed 0)."""
    import torch

    from shared.checkpoints import load_unet, save_component

    shutil.copytree(model, folder, ignore=shutil.ignore_patterns("student"))
    network = load_unet(model / "unet")
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in network.parameters():
            spread = weight.std() if weight.numel() > 1 else weight.abs()
            weight += noise * spread * torch.randn(weight.shape, generator=generator)
    save_component(network, folder / "unet")


if __name__ == "__main__":
    main()
