"""Prometheus text with names as they are: no `_total` added to counters, no `_created` series."""

from typing import Final

from prometheus_client import CollectorRegistry
from prometheus_client.samples import Sample

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"


def expose(registry: CollectorRegistry) -> bytes:
    """Render a registry."""
    lines: list[str] = []
    for family in registry.collect():
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
    return f"{name}{{{labels}}} {sample.value!r}\n" if labels else f"{name} {sample.value!r}\n"


def _escape(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n")


def _quote(text: str) -> str:
    return _escape(text).replace('"', '\\"')
