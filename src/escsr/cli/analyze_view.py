"""How ``escsr analyze`` shows itself: one table of key figures, a column per network."""

from collections.abc import Callable

from rich.console import Console
from rich.table import Table
from rich.text import Text

from escsr.analysis.kernels import DynamicKernels, LargeKernels, asymmetry
from escsr.analysis.reach import LocalAttribution, ReceptiveField
from escsr.analysis.run import Analysis, Findings
from escsr.analysis.similarity import Similarity
from escsr.analysis.spectrum import Kind, Spectra
from escsr.cli.console import printable

_NOTHING = "-"


def print_analysis(analysis: Analysis) -> None:
    """Write the key figures to stdout, and of which images they are."""
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("", no_wrap=True)
    for findings in analysis.findings:
        table.add_column(printable(findings.contender.label), justify="right", overflow="fold")
    for name, figure in _ROWS.items():
        cells = [figure(findings) for findings in analysis.findings]
        if any(cell != _NOTHING for cell in cells):
            table.add_row(name, *(Text(cell) for cell in cells))
    console = Console(highlight=False)
    console.print(table)
    console.print(_LEGEND, style="dim", markup=False)
    count = len(analysis.pictures)
    patch = analysis.settings.patch
    first = analysis.pictures[0]
    console.print(
        printable(
            f"Of {count} image{'s' if count > 1 else ''}, at most {analysis.crop_pixels} pixels "
            f"per side of each; attribution of the {patch.side} pixels from "
            f"{first.left + patch.x},{first.top + patch.y} of {first.name}."
        ),
        style="dim",
        markup=False,
    )


def _features(findings: Findings) -> str:
    return _of_neighbours(findings.features)


def _attention(findings: Findings) -> str:
    return _of_neighbours(findings.attention)


def _of_neighbours(found: object) -> str:
    return f"{found.mean_of_neighbours:.3f}" if isinstance(found, Similarity) else _NOTHING


def _reach(findings: Findings) -> str:
    found = findings.field
    if not isinstance(found, ReceptiveField):
        return _NOTHING
    return " / ".join(str(found.side_holding(share)) for share in (0.5, 0.9))


def _diffusion(findings: Findings) -> str:
    found = findings.attribution
    return f"{found.diffusion_index:.1f}" if isinstance(found, LocalAttribution) else _NOTHING


def _asymmetry(findings: Findings) -> str:
    found = findings.large_kernel
    if not isinstance(found, LargeKernels):
        return _NOTHING
    return f"{asymmetry(found.stored):.2f} / {asymmetry(found.used):.2f}"


def _spread(findings: Findings) -> str:
    found = findings.dynamic_kernel
    spread = found.spread if isinstance(found, DynamicKernels) else None
    return f"{sum(spread) / len(spread):.2f}" if spread else _NOTHING


def _highest(kind: Kind) -> Callable[[Findings], str]:
    def figure(findings: Findings) -> str:
        found = findings.spectrum
        mean = found.mean_of(kind) if isinstance(found, Spectra) else None
        return _NOTHING if mean is None else f"{float(mean[-1]):.2f}"

    return figure


_ROWS: dict[str, Callable[[Findings], str]] = {
    "CKA of neighbours": _features,
    "cosine of neighbours' attention": _attention,
    "50 / 90 % of influence, px": _reach,
    "diffusion index": _diffusion,
    "large kernel's asymmetry": _asymmetry,
    "dynamic kernels' spread": _spread,
    "fine detail, attention": _highest("attention"),
    "fine detail, ConvAttn": _highest("convattn"),
    "fine detail, blocks": _highest("block"),
}
"""What a row tells, and how its figure is had; - where there is none."""

_LEGEND = (
    "Means over pairs of a layer and the next; sides of squares; asymmetry as stored / as used; "
    "fine detail: log10 of the highest frequency's amplitude over the lowest's."
)
