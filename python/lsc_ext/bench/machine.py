"""Where a measurement was made."""

from __future__ import annotations

import platform


def machine() -> dict[str, str]:
    """The processor and the system that a measurement was made on."""
    name = platform.processor() or platform.machine()
    try:
        with open("/proc/cpuinfo") as file:
            name = next((line.split(":", 1)[1].strip() for line in file if line.startswith("model name")), name)
    except OSError:
        pass
    return {"processor": name, "system": platform.system()}
