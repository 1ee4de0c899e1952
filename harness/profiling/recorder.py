"""Record a few steps with torch.profiler, in named ranges: steps, their parts, decoder layers.

Outside of those steps nothing is installed, and a part costs one comparison.

Source: https://docs.pytorch.org/docs/stable/profiler.html.
"""

from __future__ import annotations

import gzip
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile, record_function

from harness.config import ProfileSettings
from harness.dist import World
from harness.profiling.trace import PART_RANGE, STEP_RANGE
from preprocess.durable import write_whole

if TYPE_CHECKING:
    from torch.utils.hooks import RemovableHandle

_CUDA = cast("Any", torch.cuda)
"""Its ranges and its profiler have no types."""

COMPRESSION = 6
"""Of gzip: about a twelfth of the text, at some 50 MB a second."""


def trace_file(rank: int) -> str:
    """The name of a rank's trace."""
    return f"rank{rank}.trace.json.gz"


class StepRecorder:
    """Records the steps that the settings ask for, on one rank.

    Args:
        settings: Which steps, and with what.
        world: This rank's place.

    Attributes:
        steps: To be recorded.
        taken: Recorded so far.
        is_open: Whether a step is being recorded, or has been and is not written yet.
    """

    def __init__(self, settings: ProfileSettings, world: World) -> None:
        self.settings = settings
        self.steps = settings.chosen
        self.taken: list[int] = []
        self.is_open = False
        self._world = world
        self._torch: Any = None
        self._with_nvtx = world.device.type == "cuda"

    @contextmanager
    def step(self, number: int, layers: Iterable[nn.Module] = ()) -> Iterator[None]:
        """Take the block as a step; it is recorded where the settings ask for it.

        Args:
            number: Of the step, from 1.
            layers: Decoder layers, which get a range each in the forward pass.
        """
        if number not in self.steps:
            yield
            return
        if not self.is_open:
            self._start()
        with self._range(f"{STEP_RANGE}{number}"), self._layer_ranges(layers):
            yield
            self._wait_for_device()
            self.taken.append(number)

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Name the block as a part of a step, in steps that are recorded and between them."""
        if not self.is_open:
            yield
            return
        with self._range(PART_RANGE + name):
            yield

    @contextmanager
    def _range(self, name: str) -> Iterator[None]:
        if self._with_nvtx:
            _CUDA.nvtx.range_push(name)
        try:
            with record_function(name):
                yield
        finally:
            if self._with_nvtx:
                _CUDA.nvtx.range_pop()

    @contextmanager
    def _layer_ranges(self, layers: Iterable[nn.Module]) -> Iterator[None]:
        with ExitStack() as handles:
            for index, layer in enumerate(layers):
                if getattr(layer, "_compiled_call_impl", None) is None:  # a hook would have it compiled anew
                    for handle in self._hook_layer(layer, f"layer {index}"):
                        handles.callback(handle.remove)
            yield

    def _hook_layer(self, layer: nn.Module, name: str) -> Iterator[RemovableHandle]:
        opened: list[ExitStack] = []

        def enter(module: nn.Module, inputs: object) -> None:
            stack = ExitStack()
            stack.enter_context(self._range(name))
            opened.append(stack)

        def leave(module: nn.Module, inputs: object, output: object) -> None:
            opened.pop().close()

        yield layer.register_forward_pre_hook(enter)
        yield layer.register_forward_hook(leave, always_call=True)

    def _start(self) -> None:
        self.is_open = True
        self._wait_for_device()
        if self.settings.tool == "nsys":
            _CUDA.profiler.start()
            return
        os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # it reports on the terminal what is no news
        kinds = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if self._with_nvtx else [])]
        self._torch = profile(
            activities=kinds, record_shapes=self.settings.shapes, with_stack=self.settings.stacks
        )
        self._torch.start()

    def _wait_for_device(self) -> None:
        if self._world.device.type != "cpu":
            torch.accelerator.synchronize(self._world.device)

    def stop(self) -> None:
        """Record no longer; what was recorded can be written."""
        if not self.is_open:
            return
        self.is_open = False
        self.steps = range(0)
        if self._torch is not None:
            self._torch.stop()
        elif self.settings.tool == "nsys":
            _CUDA.profiler.stop()

    def write(self, folder: Path) -> Path:
        """Write the trace into a folder that is there, whole or not at all, and forget it.

        Raises:
            NoSpaceError: The disk is full.
            DataError: It cannot be written.
        """
        path = folder / trace_file(self._world.rank)
        plain = path.with_name(f"{path.stem}.tmp")
        try:
            self._torch.export_chrome_trace(str(plain))
            with plain.open("rb") as source, write_whole(path) as target:
                packed = gzip.GzipFile(
                    fileobj=target, mode="wb", compresslevel=COMPRESSION, filename="", mtime=0
                )
                with packed:
                    shutil.copyfileobj(source, packed, 1 << 20)
        finally:
            self._torch = None
            with suppress(OSError):
                plain.unlink()
        return path
