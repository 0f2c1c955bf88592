"""The process that runs one subject, and only when it is told to.

It reads one JSON object per line from stdin and answers each with one on stdout: ``{"do":
"prepare", "subject": …, "conditions": …}``, then ``{"do": "round"}`` as often as wanted. What else
is printed goes to stderr.
"""

import json
import os
import sys
from collections.abc import Callable
from dataclasses import asdict
from typing import Any, TextIO

import torch

from escsr.engines.devices import choose_device, is_out_of_memory
from escsr.errors import EscsrError
from escsr.evaluation.benchmark.loading import load_floor, load_subject
from escsr.evaluation.benchmark.measuring import measure_round, resident_bytes
from escsr.evaluation.benchmark.record import Conditions
from escsr.evaluation.benchmark.subject import Subject

Answer = dict[str, Any]


def main() -> None:
    """Serve until stdin ends."""
    answers = _own_stdout()
    measure: Callable[[], Answer] | None = None
    for line in sys.stdin:
        message: dict[str, Any] = json.loads(line)
        try:
            if message["do"] == "prepare":
                measure, answer = _prepared(
                    Subject(**message["subject"]), Conditions(**message["conditions"])
                )
            else:
                assert measure is not None
                answer = measure()
        except Exception as error:  # a foreign network can fail in any way, and the others go on
            answer = {"error": _told(error)}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def _own_stdout() -> TextIO:
    """A stream to whoever asks; what a network prints on stdout goes to stderr instead."""
    stream = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return stream


def _prepared(subject: Subject, conditions: Conditions) -> tuple[Callable[[], Answer], Answer]:
    """What measures a round, and the portrait."""
    set_switches(conditions)
    if subject.kind == "floor":
        floor = load_floor(subject, conditions)
        portrait = {"macs": floor.arithmetic.macs}
        return lambda: asdict(floor.measure()), {"portrait": portrait}
    runnable = load_subject(subject, conditions)
    device = torch.device(choose_device(conditions.device))
    lr_image = made_up_image(conditions).to(device)
    loaded_bytes = resident_bytes()
    for _ in range(conditions.warm_up):
        runnable.run(lr_image)

    def measure() -> Answer:
        measured = measure_round(
            lambda: runnable.run(lr_image),
            repeats=conditions.repeats,
            device=device,
            loaded_bytes=loaded_bytes,
        )
        return asdict(measured)

    return measure, {"portrait": asdict(runnable.portrait)}


def set_switches(conditions: Conditions) -> None:
    """Threads, TF32 and cuDNN's search, alike for every subject."""
    torch.set_num_threads(conditions.threads)
    torch.set_float32_matmul_precision("high" if conditions.tf32 else "highest")
    torch.backends.cudnn.allow_tf32 = conditions.tf32
    torch.backends.cudnn.benchmark = True


def made_up_image(conditions: Conditions) -> torch.Tensor:
    """The image that every subject enlarges: (1, 3, H, W) in [0, 1], always the same."""
    generator = torch.Generator().manual_seed(0)
    return torch.rand(1, 3, conditions.lr_height, conditions.lr_width, generator=generator)


def _told(error: Exception) -> str:
    if isinstance(error, EscsrError):
        return str(error)
    first = (str(error).strip().splitlines() or ["no message"])[0][:300]
    if is_out_of_memory(error):
        return f"it ran out of memory ({first})"
    return f"{type(error).__name__}: {first}"


if __name__ == "__main__":
    main()
