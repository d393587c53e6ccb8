"""How much faster the carried students are than their teachers, both arts in one run.

A loaded pipeline each, prompt to pixels or samples, text encoder and decoding included: the student
in 1, 2 and 4 steps as it wants to be sampled, the teacher in 25 by the default sampler. Rounds go
through all of them, so that each meets the same machine. Prints medians and ratios; `--out` writes
every timing as JSON.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

STEPS = (1, 2, 4)
TEACHER_STEPS = 25


def makers(art: str, args: argparse.Namespace) -> dict[str, Callable[[], Any]]:
    """What is timed, by name."""
    from audiodiff import MusicPipeline
    from imagediff import ImagePipeline
    from shared.student import STUDENT, read_student

    load: Any = ImagePipeline.load if art == "image" else MusicPipeline.load
    prompt = "a red apple" if art == "image" else "fast techno"
    length = {} if art == "image" else {"seconds": args.seconds}
    teacher = load("builtin", device=args.device, dtype=args.dtype)
    student = load("builtin", device=args.device, dtype=args.dtype, student=True)
    wants = read_student(teacher.folder / STUDENT)

    def by_student(steps: int) -> Callable[[], Any]:
        return lambda: student(
            prompt, seed=0, steps=steps, sampler=wants.sampler, schedule=wants.schedule, **length
        )

    found = {f"student, {steps}": by_student(steps) for steps in STEPS}
    found[f"teacher, {TEACHER_STEPS}"] = lambda: teacher(
        prompt, seed=0, steps=TEACHER_STEPS, **length
    )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seconds", type=float, default=10.0, help="of music")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()

    import torch

    torch.set_num_threads(args.threads)
    record: dict[str, Any] = {"settings": {k: str(v) for k, v in vars(args).items()}}
    for art in ("image", "music"):
        timed = makers(art, args)
        for make in timed.values():
            make()  # what is done once is not counted
        seconds: dict[str, list[float]] = {name: [] for name in timed}
        for _ in range(args.repeats):
            for name, make in timed.items():
                start = time.perf_counter()
                make()
                seconds[name].append(time.perf_counter() - start)
        slow = statistics.median(seconds[f"teacher, {TEACHER_STEPS}"])
        for name, values in seconds.items():
            median = statistics.median(values)
            print(f"{art:6} {name:12} {median:7.3f} s {slow / median:6.2f} times as fast")
        record[art] = seconds
    if args.out:
        args.out.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
