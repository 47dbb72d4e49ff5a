"""A training step on a CUDA device: every kernel held against its plain version, then timed in encoder products.

Run: python benchmarks/gpu.py [--quick]
One encoder product is (n, d) @ (d, p) in the precision of the row, on the same device in the same run. Each figure is
the median of repeated runs between device events, after a warm-up.
"""

from __future__ import annotations

import argparse
import platform
import statistics
from collections.abc import Callable, Iterator

import torch

from proxsae.encoders import Amortized
from proxsae.kernels import triton_sparse
from proxsae.kernels.sparse import Pattern, product, row_dots, transposed_product
from proxsae.kernels.top_k import matrix_support, row_support, top_k_mask
from proxsae.regularizers import Cardinality, NonNegative
from proxsae.training import Scaling, Trainer, TrainingState
from proxsae.training.autoencoder import initial_autoencoder

REPEATS = 7


def milliseconds(run: Callable[[], object], repeats: int = REPEATS) -> float:
    """Return the median time of a run on the device."""
    for _ in range(5):  # compile, record
        run()
    times = []
    for _ in range(repeats):
        start, stop = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        run()
        stop.record()
        stop.synchronize()
        times.append(start.elapsed_time(stop))
    return statistics.median(times)


def sizes(quick: bool) -> Iterator[tuple[int, int, int, int]]:
    """Yield features, atoms, k and batch."""
    for d in (768, 2304, 4096):
        for width in (16,) if quick else (16, 32):
            for k in (32, 128):
                for n in (4096, 16384):
                    if not (quick and (k == 128 or n == 16384) and d != 768):
                        yield d, width * d, k, n


def kernel_rows(d: int, p: int, k: int, n: int, dtype: torch.dtype) -> dict[str, float]:
    """Return the time of the encoder product, and of each kernel of a step in units of it."""
    x = torch.randn(n, d, device="cuda", dtype=dtype)
    W = torch.nn.functional.normalize(torch.randn(p, d, device="cuda"), dim=1)
    low = W.to(dtype)
    unit = milliseconds(lambda: x @ low.T)
    U = (x @ low.T).float()
    pattern = Pattern(*row_support(U, k, 1.0), n_columns=p)
    values = pattern.gather(U)
    G = torch.randn(n, d, device="cuda")
    rows = {
        "product (ms)": unit,
        "top-k": milliseconds(lambda: row_support(U, k, 1.0)) / unit,
        "batch top-k": milliseconds(lambda: matrix_support(U, k * n, 1.0)) / unit,
        "torch.topk": milliseconds(lambda: torch.topk(U, k, dim=1), 3) / unit,
        "decode": milliseconds(lambda: product(pattern, values, W)) / unit,
        "row dots": milliseconds(lambda: row_dots(pattern, G, W)) / unit,
        "sort": milliseconds(lambda: triton_sparse.columns_of(pattern.rows, pattern.indices, p)) / unit,
        "transposed": milliseconds(lambda: transposed_product(pattern, values, G)) / unit,
    }
    W.grad = torch.zeros_like(W)
    adam = torch.optim.Adam([W], fused=True)
    rows["Adam, one matrix"] = milliseconds(adam.step) / unit
    rows["unit norm"] = milliseconds(lambda: W.div_(torch.linalg.vector_norm(W, dim=1, keepdim=True))) / unit
    return rows


def proxsae_step(d: int, p: int, k: int, n: int, precision: str) -> Callable[[], object]:
    """Return our training step, TopK."""
    R = NonNegative() + Cardinality(k)
    generator = torch.Generator().manual_seed(0)
    encoder = Amortized(precision=precision)
    model = initial_autoencoder(encoder, R, p, d, generator, torch.float32, False).to("cuda")
    x = torch.randn(n, d, device="cuda")
    state = TrainingState.start(model, Scaling(torch.zeros(d, device="cuda"), 1.0), R)
    trainer = Trainer(state, learning_rate=1e-3)
    return lambda: trainer.step(x)


def dense_step(d: int, p: int, k: int, n: int, precision: str) -> Callable[[], object]:
    """Return the step that one writes first, through torch.compile: dense codes, torch.topk, autograd, Adam."""
    D = torch.nn.Parameter(torch.nn.functional.normalize(torch.randn(p, d, device="cuda"), dim=1))
    W = torch.nn.Parameter(D.detach().clone())
    bias = torch.nn.Parameter(torch.zeros(p, device="cuda"))
    optimizer = torch.optim.Adam([W, D, bias], lr=1e-3, fused=True)
    x = torch.randn(n, d, device="cuda")

    @torch.compile(dynamic=False)
    def loss_of(x: torch.Tensor, W: torch.Tensor, D: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        with torch.autocast("cuda", torch.bfloat16, enabled=precision == "bfloat16"):
            u = torch.nn.functional.linear(x, W, bias).relu()
            top = u.topk(k, dim=-1)
            z = torch.zeros_like(u).scatter(-1, top.indices, top.values)
            return 0.5 * (x - z @ D).square().sum() / len(x)

    def step() -> None:
        loss = loss_of(x, W, D, bias)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            D.div_(torch.linalg.vector_norm(D, dim=1, keepdim=True))

    return step


def product_time(d: int, p: int, n: int, dtype: torch.dtype) -> float:
    """Return the time of (n, d) @ (d, p)."""
    x, W = torch.randn(n, d, device="cuda", dtype=dtype), torch.randn(p, d, device="cuda", dtype=dtype)
    return milliseconds(lambda: x @ W.T)


def step_rows(d: int, p: int, k: int, n: int, precision: str, *, dense: bool) -> dict[str, float]:
    """Return time and memory of whole steps."""
    low = torch.bfloat16 if precision == "bfloat16" else torch.float32
    rows = {"product (ms)": product_time(d, p, n, low)}
    kept = 3 * 4 * 2 * p * d  # parameters and the two moments of Adam, in bytes
    for name, make in (("proxsae", proxsae_step), ("dense", dense_step)):
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        rows |= {f"{name} step": float("nan"), f"{name} tokens/s": float("nan"), f"{name} memory": float("nan")}
        if name == "dense" and not dense:
            continue
        try:
            time = milliseconds(make(d, p, k, n, precision), 5)
        except torch.cuda.OutOfMemoryError:
            continue
        rows[f"{name} step"] = time / rows["product (ms)"]
        rows[f"{name} tokens/s"] = 1000 * n / time
        rows[f"{name} memory"] = torch.cuda.max_memory_allocated() / kept
    return rows


def check() -> None:
    """Raise AssertionError where a kernel differs from its plain version on this device."""
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        U = torch.randn(257, 5000, device="cuda").to(dtype)
        for mirror in (-1.0, 1.0):
            pattern = Pattern(*row_support(U, 37, mirror), n_columns=5000)
            mask = torch.zeros_like(U, dtype=torch.bool)
            mask[pattern.rows, pattern.indices] = True
            assert torch.equal(mask, top_k_mask(U.abs() if mirror == -1 else U, 37))


def table(results: list[tuple[str, dict[str, float]]]) -> str:
    """Return the rows as aligned text."""
    names = list(results[0][1])
    width = max(len(label) for label, _ in results)
    lines = [" " * width + "".join(f"{name:>17s}" for name in names)]
    lines += [f"{label:{width}s}" + "".join(f"{row[name]:17.4g}" for name in names) for label, row in results]
    return "\n".join(lines)


def main() -> None:
    """Check, then print the tables."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true", help="fewer sizes")
    quick = parser.parse_args().quick
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}, Python {platform.python_version()}")
    torch.manual_seed(0)
    check()
    for precision in ("bfloat16", "float32"):
        steps, kernels = [], []
        for d, p, k, n in sizes(quick):
            label = f"d {d} p {p} k {k} n {n}"
            steps.append((label, step_rows(d, p, k, n, precision, dense=k == 32)))
            if d == 2304:
                kernels.append((label, kernel_rows(d, p, k, n, getattr(torch, precision))))
            torch.cuda.empty_cache()
        print(f"\nwhole steps, TopK, product in {precision}: step in encoder products, memory in parameters and Adam")
        print(table(steps))
        print(f"\nkernel by kernel, in encoder products of {precision}\n{table(kernels)}", flush=True)


if __name__ == "__main__":
    main()
