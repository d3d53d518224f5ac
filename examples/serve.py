"""Serve an exported model: requests of one image each, answered in batches by a few threads.

    image2video export runs/wrapped --out model.pt2
    python examples/serve.py model.pt2 --clients 8 --requests 64

It shows the parts that a server needs, without a server: a queue that collects images until a batch is full or the
oldest has waited long enough, workers that run batches, and answers that find their way back. A `VideoWrap` can take
the place of the file, since one model may run in many threads at once: `BatchQueue(model.eval(), (3, 224, 224))`.
"""

from __future__ import annotations

import argparse
import json
import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

Model = Callable[[Tensor], Any]


def read_record(path: Path) -> dict[str, Any]:
    """What the check file says of an exported file."""
    return json.loads(path.with_name(f"{path.name}.check.json").read_text(encoding="utf-8"))


def load(path: Path) -> Model:
    """A function that runs an exported file, by the runtime of its format; none of it needs image2video."""
    record = read_record(path)
    if record["format"].startswith("onnx"):
        import onnxruntime

        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        return lambda images: torch.from_numpy(session.run(None, {"images": images.numpy()})[0])
    if record["format"] == "torchscript":
        return torch.jit.load(str(path))
    if record["format"] == "aoti":
        return torch._inductor.aoti_load_package(str(path))
    if record["format"] == "int8":
        import torchao.quantization.pt2e.quantize_pt2e  # noqa: F401 (the operators that round)
    return torch.export.load(path).module()


class BatchQueue:
    """Answers single images in batches.

    Args:
        model: takes `(B, C, H, W)` and returns a tensor with a row per image.
        shape: `(C, H, W)` of an image; another one is refused alone, and does not spoil the batch of others.
        max_batch: images that are run at once.
        max_wait: seconds that an image waits for others.
        workers: threads that run batches.
        batch_size: how many images the model takes in every call, where it takes no other number (a file of
            `--batch-size N`); it stands for `max_batch`, and fewer images are filled up with the last of them.
    """

    def __init__(
        self,
        model: Model,
        shape: tuple[int, ...],
        *,
        max_batch: int = 8,
        max_wait: float = 0.005,
        workers: int = 2,
        batch_size: int | None = None,
    ) -> None:
        self.model, self.shape, self.max_wait = model, tuple(shape), max_wait
        self.batch_size, self.max_batch = batch_size, batch_size or max_batch
        self.batches = 0
        self._queue: queue.Queue[tuple[Tensor, Future[Tensor]] | None] = queue.Queue()
        self._collecting, self._closing = threading.Lock(), threading.Lock()
        self._closed = False
        self._workers = [threading.Thread(target=self._work, daemon=True) for _ in range(workers)]
        for worker in self._workers:
            worker.start()

    def submit(self, image: Tensor) -> Future[Tensor]:
        """Ask for the output of an image `(C, H, W)`."""
        if tuple(image.shape) != self.shape:
            raise ValueError(f"an image must be {self.shape}, got {tuple(image.shape)}")
        answer: Future[Tensor] = Future()
        with self._closing:
            if self._closed:
                raise RuntimeError("the queue is closed")
            self._queue.put((image, answer))
        return answer

    def close(self) -> None:
        """Answer what was asked for, and end the workers."""
        with self._closing:
            if not self._closed:
                self._closed = True
                for _ in self._workers:
                    self._queue.put(None)
        for worker in self._workers:
            worker.join()

    def _collect(self) -> list[tuple[Tensor, Future[Tensor]]]:
        """The next batch; none where the queue is closed."""
        found: list[tuple[Tensor, Future[Tensor]]] = []
        # One worker collects while the others run: two would share the images that could have made one batch.
        with self._collecting:
            wait: float | None = None
            deadline = 0.0
            while len(found) < self.max_batch:
                try:
                    item = self._queue.get(timeout=wait)
                except queue.Empty:
                    break
                if item is None:
                    if found:  # the mark is for the next round of this worker
                        self._queue.put(None)
                    break
                if not found:
                    deadline = time.monotonic() + self.max_wait
                found.append(item)
                wait = max(0.0, deadline - time.monotonic())
        return found

    def _run(self, images: list[Tensor]) -> Tensor:
        """The outputs of one batch, a row per image."""
        fill = [images[-1]] * (0 if self.batch_size is None else self.batch_size - len(images))
        outputs = self.model(torch.stack([*images, *fill]))
        outputs = outputs[0] if isinstance(outputs, list | tuple) else outputs
        expected = len(images) + len(fill)
        if not isinstance(outputs, Tensor) or outputs.ndim == 0 or len(outputs) != expected:
            got = tuple(outputs.shape) if isinstance(outputs, Tensor) else f"a {type(outputs).__name__}"
            raise ValueError(f"the model must return a tensor with a row for each of {expected} images, got {got}")
        return outputs[: len(images)]

    @torch.inference_mode()
    def _work(self) -> None:
        while batch := self._collect():
            batch = [(image, answer) for image, answer in batch if answer.set_running_or_notify_cancel()]
            if not batch:
                continue
            # An error of any kind is the answer: a worker that it ended would answer nobody again.
            try:
                outputs = self._run([image for image, _ in batch])
            except Exception as error:
                for _, answer in batch:
                    answer.set_exception(error)
                continue
            self.batches += 1
            for (_, answer), output in zip(batch, outputs, strict=True):
                answer.set_result(output)


def main() -> None:
    """Ask for the images of the check file many times, from several threads, and compare the answers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, help="what `image2video export` wrote")
    parser.add_argument("--clients", type=int, default=8, help="threads that ask")
    parser.add_argument("--requests", type=int, default=64, help="images in all")
    parser.add_argument("--max-batch", type=int, default=8, help="images that are run at once, if the file allows it")
    args = parser.parse_args()
    check = load_file(f"{args.file}.check.safetensors")
    images, expected = check.pop("images"), check.get("output", check.get("output_0"))
    rows = read_record(args.file)["input"]["shape"][0]  # "batch" stands for any number
    fixed = rows if isinstance(rows, int) else None
    server = BatchQueue(load(args.file), images.shape[1:], max_batch=args.max_batch, batch_size=fixed)

    def ask(number: int) -> float:
        index = number % len(images)
        return float((server.submit(images[index]).result() - expected[index]).abs().max())

    begin = time.perf_counter()
    with ThreadPoolExecutor(args.clients) as clients:
        worst = max(clients.map(ask, range(args.requests)))
    seconds = time.perf_counter() - begin
    server.close()
    print(
        f"{args.requests} requests of {args.clients} clients in {server.batches} batches, "
        f"{args.requests / seconds:.0f} images/s, largest difference from the model {worst:.2g}"
    )


if __name__ == "__main__":
    main()
