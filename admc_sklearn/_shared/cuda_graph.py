"""A training step recorded once as a CUDA graph, and replayed.

A step of a small network is a few hundred kernels of some microseconds each: a GPU
waits for Python, which launches them one by one. A graph launches them all at once. It
reads and writes the same memory each time, so shapes must not change and nothing in it
may wait for a result. (Nguyen et al., "Accelerating PyTorch with CUDA Graphs", 2021.)
"""

from __future__ import annotations

import warnings

import torch

# Calls before the recording, so that libraries have set up what they need.
N_WARM_UPS = 3


class Replayed:
    """A function of tensors of unchanging shapes, replayed from a graph on CUDA.

    Its first calls run as they are, and so do all of them on other devices, on the
    same copies of the arguments that a graph would read.

    Parameters
    ----------
    function : callable
        ``function(*inputs)`` returns a tensor. It may change others in place, waits
        for no result and frees what it has made.
    device : torch.device
    """

    def __init__(self, function, device):
        self.function, self.device = function, device
        self.inputs = self.graph = self.result = None
        self.n_calls = 0
        self.is_recordable = device.type == "cuda"
        self.stream = torch.cuda.Stream(device) if self.is_recordable else None

    def __call__(self, *inputs):
        """Call the function on copies of the inputs; what it returns."""
        if self.inputs is None:
            self.inputs = [tensor.clone() for tensor in inputs]
        else:
            for own, new in zip(self.inputs, inputs, strict=True):
                own.copy_(new)
        self.n_calls += 1
        if self.is_recordable and self.n_calls > N_WARM_UPS:
            self._record()
        if self.graph is not None:
            self.graph.replay()
            return self.result.clone()
        return self.function(*self.inputs) if self.stream is None else self._aside()

    def _aside(self):
        """Run the function on the stream that it is recorded on later."""
        current = torch.cuda.current_stream(self.device)
        self.stream.wait_stream(current)
        with torch.cuda.stream(self.stream):
            result = self.function(*self.inputs)
        current.wait_stream(self.stream)
        result.record_stream(current)
        return result

    def _record(self):
        """Record the function, which does not run it; this is tried once.

        Where a driver or a library refuses, training is slower, not impossible.
        """
        self.is_recordable = False
        graph = torch.cuda.CUDAGraph()
        options = {"stream": self.stream, "capture_error_mode": "thread_local"}
        current = torch.cuda.current_stream(self.device)
        try:
            # A recording that fails at its end leaves its stream the current one.
            with torch.cuda.device(self.device), torch.cuda.stream(current):
                with torch.cuda.graph(graph, **options):
                    self.result = self.function(*self.inputs)
        except RuntimeError as error:
            _leave_recording(self.device)
            warnings.warn(
                f"A training step could not be recorded as a CUDA graph ({error}); "
                "training goes on without, more slowly.",
                RuntimeWarning,
                stacklevel=2,
            )
        else:
            self.graph = graph


def _leave_recording(device):
    """Give a device's random numbers a state of their own after a failed recording.

    In some releases of torch they stay those of the graph, and dropout then fails.
    """
    index = torch.cuda.current_device() if device.index is None else device.index
    generator = torch.cuda.default_generators[index]
    generator.graphsafe_set_state(generator.clone_state())
