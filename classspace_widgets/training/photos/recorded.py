"""A step of training as one recording: a GPU replays its many small kernels quicker than Python can launch them."""

from __future__ import annotations

from collections.abc import Callable, Hashable

import torch
from torch import Tensor


class Recorded:
    """A call whose kernels are recorded as a CUDA graph and replayed.

    The call reads and writes tensors that stay in place and draws from the GPU's default generator. What it reads from
    Python (rates, shapes) is part of the recording: it is made anew whenever the ``settings`` of a call are new ones.

    Parameters
    ----------
    call : callable
        Returns one tensor. It is carried out as it is three times, so that what it makes on first use is there.
    """

    WARM_UP = 3

    def __init__(self, call: Callable[[], Tensor]) -> None:
        self.call, self.calls = call, 0
        self.settings: Hashable = None
        self.graph: torch.cuda.CUDAGraph | None = None
        self.result: Tensor | None = None
        self.stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]

    def __call__(self, settings: Hashable) -> Tensor:
        """The call's tensor, on the GPU; the next call overwrites it."""
        self.calls += 1
        if self.calls <= self.WARM_UP:
            self.stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(self.stream):
                result = self.call()
            torch.cuda.current_stream().wait_stream(self.stream)
            return result
        if self.graph is None or settings != self.settings:
            torch.cuda.synchronize()
            self.graph, self.result = None, None
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                self.result = self.call()
            self.graph, self.settings = graph, settings
        self.graph.replay()
        assert self.result is not None
        return self.result
