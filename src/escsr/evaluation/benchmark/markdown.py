"""A benchmark as a page to read."""

from escsr.evaluation.benchmark.record import Benchmark
from escsr.evaluation.benchmark.table import (
    Table,
    failures_in_words,
    network_table,
    timing_table,
)
from escsr.evaluation.report_markdown import markdown_table


def as_markdown(benchmark: Benchmark, *, figure: str | None = None) -> str:
    """The table, the conditions, what failed, and the machine.

    Args:
        benchmark: what to tell.
        figure: name of the picture's file, beside the page.
    """
    parts = [
        f"# Latency and memory at x{benchmark.conditions.scale}",
        *_parts_of(timing_table(benchmark)),
        "## Networks",
        *_parts_of(network_table(benchmark)),
    ]
    if figure is not None:
        parts.append(f"![Quality against latency; the area is memory]({figure})")
    if failures := failures_in_words(benchmark):
        parts.append("## What failed\n\n" + "\n".join(f"- {failure}" for failure in failures))
    rates = _rates(benchmark)
    if rates:
        parts.append(rates)
    parts.append(_machine(benchmark))
    return "\n\n".join(parts) + "\n"


def _parts_of(table: Table) -> list[str]:
    alignment = ["---", *["---:"] * (len(table.headings) - 1)]
    parts = [markdown_table([table.headings, alignment, *table.rows])]
    return [*parts, "\n".join(f"- {note}" for note in table.notes)] if table.notes else parts


def _rates(benchmark: Benchmark) -> str | None:
    """The best rates of the last round, by shape."""
    measured = [floor.floor_rounds[-1] for floor in benchmark.floors if floor.floor_rounds]
    if not measured:
        return None
    rows = [("Product", "GFLOP/s"), ("---", "---:")]
    rates = {name: rate for one in measured for name, rate in one.gigaflops.items()}
    rows += [(name, f"{rate:.0f}") for name, rate in sorted(rates.items())]
    exps = f"exp: {measured[-1].gigaexps:.2f} G/s."
    return f"## Rates behind the floor\n\n{markdown_table(rows)}\n\n{exps}"


def _machine(benchmark: Benchmark) -> str:
    environment = benchmark.environment
    packages = ", ".join(f"{name} {found}" for name, found in environment["packages"].items())
    facts = {
        "Date": environment["date"],
        "escsr": f"{environment['escsr']}, revision {environment['git_revision'] or 'unknown'}",
        "Processor": f"{environment['processor']}, {environment['instructions']}, "
        f"{environment['cores']} cores",
        "GPU": _gpu(environment["gpu"]),
        "Software": f"torch {environment['torch']}, Python {environment['python']}, {packages}",
        "System": environment["system"],
    }
    rows = [("", ""), ("---", "---"), *facts.items()]
    return "## Machine\n\n" + markdown_table(rows)


def _gpu(gpu: dict[str, object] | None) -> str:
    return "-" if gpu is None else f"{gpu['name']}, CUDA {gpu['cuda']}, cuDNN {gpu['cudnn']}"
