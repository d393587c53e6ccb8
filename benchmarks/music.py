"""How fast `MusicPipeline` makes music, what each stage takes of the time, and its memory.

* warm: a loaded pipeline, text to samples, default settings, a clip of the usual length;
* long: the same for a minute, in a process of its own, whose peak memory is told as well.

Prints medians, and writes every timing as JSON with `--out`.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest.mock import patch

ROOT = Path(__file__).resolve().parent.parent
STAGES = ("text", "denoising", "autoencoder", "vocoder", "loudness", "other")
MIB = 2**20


class Clock:
    """Seconds spent in functions, by the name of their stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = dict.fromkeys(STAGES, 0.0)

    def times(self, stage: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, its time taken."""

        def timed(*args: Any, **options: Any) -> Any:
            start = time.perf_counter()
            try:
                return function(*args, **options)
            finally:
                self.seconds[stage] += time.perf_counter() - start

        return timed


def staged(pipeline: Any, clock: Clock) -> ExitStack:
    """While the result is open, the clock takes the time of the pipeline's stages."""
    import audiodiff.pipeline as module

    guided_windows = module.guided_windows

    def timed_windows(*args: Any, **options: Any) -> Any:
        return clock.times("denoising", guided_windows(*args, **options))

    codec = pipeline.codec
    stack = ExitStack()
    for owner, name, function in (
        (module, "encode_prompts", clock.times("text", module.encode_prompts)),
        (module, "guided_windows", timed_windows),
        (module, "finish", clock.times("loudness", module.finish)),
        (codec, "latents_to_mel", clock.times("autoencoder", codec.latents_to_mel)),
        (codec, "vocoder", clock.times("vocoder", codec.vocoder)),
    ):
        stack.enter_context(patch.object(owner, name, function))
    return stack


def run(pipeline: Any, args: argparse.Namespace, seconds: float) -> dict[str, float]:
    """Seconds of each stage and of the whole, for one clip."""
    clock = Clock()
    with staged(pipeline, clock):
        start = time.perf_counter()
        pipeline(args.prompt, seconds=seconds, seed=0, steps=args.steps)
        whole = time.perf_counter() - start
    stages = clock.seconds | {"other": whole - sum(clock.seconds.values())}
    return stages | {"whole": whole}


def load(args: argparse.Namespace) -> Any:
    import torch

    from audiodiff import MusicPipeline

    torch.set_num_threads(args.threads)
    return MusicPipeline.load(args.model, device="cpu", dtype=args.dtype)


def peak_bytes() -> int:
    """Most memory that this process had at once."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def long_clip(args: argparse.Namespace) -> dict[str, float]:
    """What `run` gives for the long clip, and the peak memory, from a process of its own."""
    command = [sys.executable, __file__, "--child", "--model", args.model, "--prompt", args.prompt]
    for name in ("steps", "threads", "dtype", "long"):
        command += [f"--{name}", str(getattr(args, name))]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    if done.returncode:
        sys.exit(f"the process for the long clip failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def tell(name: str, seconds: float, times: dict[str, float], remark: str = "") -> None:
    """One line of the table."""
    whole = times["whole"]
    shares = "".join(f"{times[stage] / whole:>12.0%}" for stage in STAGES)
    print(
        f"{name:6}{seconds:>7.1f}{whole:>9.2f}{seconds / whole:>10.2f}{shares}  {remark}".rstrip()
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default="builtin", help="name or folder of a music model")
    parser.add_argument("--prompt", default="a slow jazz piano trio in A minor, 80 bpm")
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--seconds", type=float, default=6.0, help="of the warm runs' clip")
    parser.add_argument("--long", type=float, default=60.0, help="seconds; 0: no long clip")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, help="write every timing to this JSON file")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    sys.path.insert(0, str(ROOT))

    if args.child:
        pipeline = load(args)
        print(json.dumps(run(pipeline, args, args.long) | {"peak_bytes": peak_bytes()}))
        return

    pipeline = load(args)
    run(pipeline, args, args.seconds)  # not counted: the first run sets things up
    runs = [run(pipeline, args, args.seconds) for _ in range(args.repeats)]
    median = {stage: statistics.median(one[stage] for one in runs) for stage in (*STAGES, "whole")}
    print(f"{'':6}{'music s':>7}{'time s':>9}{'x real':>10}{''.join(f'{s:>12}' for s in STAGES)}")
    tell("warm", args.seconds, median, f"median of {args.repeats}")
    settings = {key: value for key, value in vars(args).items() if key not in ("out", "child")}
    report: dict[str, Any] = {"settings": settings, "warm": runs, "median": median}
    if args.long:
        report["long"] = times = long_clip(args)
        tell("long", args.long, times, f"peak memory {times['peak_bytes'] / MIB:,.0f} MiB")
    print(json.dumps({key: report[key] for key in ("median", "long") if key in report}))
    if args.out:
        args.out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
