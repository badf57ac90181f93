"""Prometheus text with names as they are: no `_total` added to counters, no `_created` series."""

from collections.abc import Iterable
from typing import Final

from prometheus_client import Metric
from prometheus_client.samples import Sample

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"


def expose(families: Iterable[Metric]) -> bytes:
    """Render metrics, each family once."""
    lines: list[str] = []
    for family in families:
        lines.append(f"# HELP {family.name} {_escape(family.documentation)}\n")
        lines.append(f"# TYPE {family.name} {family.type}\n")
        lines += [
            _line(sample, family.type)
            for sample in family.samples
            if not sample.name.endswith("_created")
        ]
    return "".join(lines).encode()


def _line(sample: Sample, family_type: str) -> str:
    name = sample.name.removesuffix("_total") if family_type == "counter" else sample.name
    labels = ",".join(f'{key}="{_quote(value)}"' for key, value in sample.labels.items())
    value = repr(float(sample.value))
    return f"{name}{{{labels}}} {value}\n" if labels else f"{name} {value}\n"


def _escape(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n")


def _quote(text: str) -> str:
    return _escape(text).replace('"', '\\"')
