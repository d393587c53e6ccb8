"""Duotone against diffusers' StableDiffusionPipeline: same weights, prompt, steps, sampler, dtype.

Three comparisons, each timed alternately so that whatever else the machine does hits both alike:

* warm: one picture out of a loaded pipeline, text encoding and decoding included;
* cold: whole processes, from start to the PNG file, each with its own choice of sampler;
* help: `duotone --help` against a Python process that does nothing.

Prints medians and ratios, and writes every timing as JSON with `--out`.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PARTS = ("warm", "cold", "help")

# Duotone's sampler and schedule -> diffusers' scheduler class and its options.
SAMPLERS: Mapping[str, tuple[str, str, Mapping[str, Any]]] = {
    "ddim": (
        "trained",
        "DDIMScheduler",
        {"timestep_spacing": "trailing", "clip_sample": False, "set_alpha_to_one": True},
    ),
    "dpm++2m": (
        # Not Karras: diffusers' runs past its own table on the carried model's cosine schedule.
        "trained",
        "DPMSolverMultistepScheduler",
        {"timestep_spacing": "trailing", "final_sigmas_type": "zero"},
    ),
}

# What a user of diffusers would write to make one picture. `import shared` costs nothing and lets
# diffusers be imported where PyPI's torchaudio lies beside a CPU-only torch.
DIFFUSERS_SCRIPT = """
import sys
import shared
import torch
from diffusers import StableDiffusionPipeline

folder, prompt, steps, guidance_scale, dtype, out = sys.argv[1:]
pipeline = StableDiffusionPipeline.from_pretrained(
    folder, torch_dtype=getattr(torch, dtype), safety_checker=None, local_files_only=True
)
image = pipeline(
    prompt,
    num_inference_steps=int(steps),
    guidance_scale=float(guidance_scale),
    generator=torch.Generator().manual_seed(0),
).images[0]
image.save(out)
"""


@dataclass(frozen=True)
class Timings:
    """Seconds of each run of Duotone and of what it is compared with."""

    duotone: list[float]
    peer: list[float]

    @property
    def ratio(self) -> float:
        return statistics.median(self.duotone) / statistics.median(self.peer)

    @property
    def difference(self) -> float:
        return statistics.median(self.duotone) - statistics.median(self.peer)


def alternate(duotone: Callable[[], object], peer: Callable[[], object], repeats: int) -> Timings:
    """Time both ``repeats`` times in turn, the first to go changing, after one uncounted run."""
    seconds: dict[Callable[[], object], list[float]] = {duotone: [], peer: []}
    for repeat in range(-1, repeats):
        for function in (duotone, peer) if repeat % 2 else (peer, duotone):
            start = time.perf_counter()
            function()
            if repeat >= 0:
                seconds[function].append(time.perf_counter() - start)
    return Timings(seconds[duotone], seconds[peer])


def warm(args: argparse.Namespace, dtype: str) -> tuple[Timings, float]:
    """Timings of loaded pipelines, and how far the pictures differ: mean grey levels of 255."""
    import diffusers
    import numpy as np
    import torch
    import transformers

    from imagediff import ImagePipeline
    from shared.noise import seeded_noise

    warnings.simplefilter("ignore", FutureWarning)  # diffusers renames torch_dtype
    for library in (diffusers, transformers):
        library.logging.set_verbosity_error()
        library.logging.disable_progress_bar()
    if args.threads:
        torch.set_num_threads(args.threads)
    schedule, scheduler, options = SAMPLERS[args.sampler]

    ours = ImagePipeline.load(args.model, device="cpu", dtype=dtype)
    theirs: Any = diffusers.StableDiffusionPipeline.from_pretrained(
        args.model, torch_dtype=getattr(torch, dtype), safety_checker=None, local_files_only=True
    )
    theirs.scheduler = getattr(diffusers, scheduler).from_config(theirs.scheduler.config, **options)
    theirs.set_progress_bar_config(disable=True)
    # The same start noise, so that both draw the same picture.
    side = theirs.unet.config["sample_size"]
    noise = seeded_noise([0], (theirs.unet.config["in_channels"], side, side))

    def run_ours():
        return ours(
            args.prompt,
            seed=0,
            steps=args.steps,
            guidance_scale=args.guidance_scale,
            sampler=args.sampler,
            schedule=schedule,
        )[0]

    def run_theirs():
        return theirs(
            args.prompt,
            num_inference_steps=args.steps,
            guidance_scale=args.guidance_scale,
            latents=noise.to(theirs.unet.dtype),
        ).images[0]

    pixels = [np.asarray(run(), dtype=np.float32) for run in (run_ours, run_theirs)]
    return alternate(run_ours, run_theirs, args.repeats), float(abs(pixels[0] - pixels[1]).mean())


def cold(args: argparse.Namespace, dtype: str) -> Timings:
    """Timings of whole processes, each making one PNG file."""
    with tempfile.TemporaryDirectory() as folder:
        values = (args.steps, args.guidance_scale, dtype)
        flags = zip(("--steps", "--guidance-scale", "--dtype"), map(str, values), strict=True)
        ours = [duotone(), "image", args.prompt, "--model", args.model, "--device", "cpu"]
        ours += [text for pair in flags for text in pair]
        ours += ["-o", f"{folder}/duotone.png", "--overwrite"]
        theirs = [sys.executable, "-c", DIFFUSERS_SCRIPT, args.model, args.prompt]
        theirs += [*map(str, values), f"{folder}/diffusers.png"]
        return alternate(process(ours, args.threads), process(theirs, args.threads), args.repeats)


def help_page(args: argparse.Namespace) -> Timings:
    """Timings of `duotone --help` and of a Python process that does nothing."""
    return alternate(
        process([duotone(), "--help"], args.threads),
        process([sys.executable, "-c", "pass"], args.threads),
        max(args.repeats, 10),  # they are short
    )


def duotone() -> str:
    """The command as installed beside this Python."""
    return str(Path(sys.executable).with_name("duotone"))


def process(command: Sequence[str], threads: int) -> Callable[[], object]:
    """A function that runs ``command`` to its end; it fails loudly, with what the command said."""
    environment = dict(os.environ)
    if threads:
        environment["OMP_NUM_THREADS"] = str(threads)

    def run() -> None:
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"{command[0]} failed with exit code {done.returncode}:\n{done.stderr}")

    return run


def machine(threads: int) -> dict[str, Any]:
    """What was measured on, for the record."""
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [line for line in info.read_text().splitlines() if line.startswith("model name")]
        cpu = names[0].partition(":")[2].strip() if names else cpu
    return {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "threads": threads or "default",
        "system": platform.platform(),
        "python": platform.python_version(),
        **{name: version(name) for name in ("duotone", "torch", "diffusers", "transformers")},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--model",
        default=str(ROOT / "imagediff" / "weights"),
        help="folder in diffusers' layout (default: the carried model)",
    )
    parser.add_argument("--prompt", default="a red apple")
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--guidance-scale", type=float, default=4.0)
    parser.add_argument("--sampler", choices=SAMPLERS, default="dpm++2m", help="of the warm runs")
    parser.add_argument(
        "--dtype", default="auto", help="of both; auto: what Duotone would take on this CPU"
    )
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, default=0, help="of both (default: torch's choice)")
    parser.add_argument("--only", choices=PARTS, action="append", help="may be given repeatedly")
    parser.add_argument("--out", type=Path, help="write every timing to this JSON file")
    args = parser.parse_args()
    parts = args.only or PARTS

    import torch

    from shared.devices import dtype_name, resolve_dtype

    dtype = dtype_name(resolve_dtype(args.dtype, torch.device("cpu")))
    settings = {key: value for key, value in vars(args).items() if key not in ("out", "only")}
    report: dict[str, Any] = {
        "machine": machine(args.threads),
        "settings": settings | {"dtype": dtype, "model": Path(args.model).name},
    }
    print(f"{'':6}{'duotone':>12}{'compared':>12}{'ratio':>8}   medians in seconds")

    def tell(part: str, timings: Timings, remark: str) -> None:
        report[part] = asdict(timings) | {"ratio": timings.ratio}
        medians = statistics.median(timings.duotone), statistics.median(timings.peer)
        print(f"{part:6}{medians[0]:12.3f}{medians[1]:12.3f}{timings.ratio:8.2f}   {remark}")

    if "warm" in parts:
        timings, apart = warm(args, dtype)
        tell("warm", timings, f"{args.sampler}, {dtype}; pictures differ by {apart:.2f} of 255")
    if "cold" in parts:
        tell("cold", cold(args, dtype), f"whole processes, {dtype}")
    if "help" in parts:
        timings = help_page(args)
        tell("help", timings, f"{timings.difference:+.3f} s over `python -c pass`")
    if args.out:
        args.out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
