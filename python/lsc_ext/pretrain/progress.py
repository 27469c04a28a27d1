"""A bar that shows how far pre-training is."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from lsc_ext.pretrain.result import PretrainStep


class ProgressBar:
    """A bar on standard error; silent where that is not a terminal."""

    def __init__(self, steps: int, wanted: bool | None) -> None:
        self._steps = steps
        self._shown = sys.stderr.isatty() if wanted is None else wanted
        self._bar: Any = None

    def __enter__(self) -> Callable[[PretrainStep], None]:
        if not self._shown:
            return lambda record: None
        from rich.console import Console
        from rich.progress import Progress

        self._bar = Progress(console=Console(stderr=True), transient=True)
        self._bar.start()
        task = self._bar.add_task("pre-training", total=self._steps)

        def advance(record: PretrainStep) -> None:
            self._bar.update(task, advance=1, description=f"pre-training, off by {record.deviation:.3f}")

        return advance

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()
