"""A training step on a CUDA device: every kernel held against its plain version, then timed in encoder products.

Run: python benchmarks/gpu.py [--quick]
One encoder product is (n, d) @ (d, p) in the precision of the row, on the same device in the same run. Each figure is
the median of repeated runs between device events, after a warm-up; a run of a step is a series of them, with all that
is done only every so many steps.
"""

from __future__ import annotations

import argparse
import platform
import statistics
from collections.abc import Callable, Iterator

import torch

from proxsae.encoders import Amortized
from proxsae.kernels import triton_adam, triton_sparse, triton_top_k
from proxsae.kernels.sparse import (
    Pattern,
    product,
    row_dots,
    row_dots_plain,
    transposed_product,
    transposed_product_plain,
)
from proxsae.kernels.top_k import matrix_support, pattern_of, row_support, top_k_mask
from proxsae.regularizers import Cardinality, NonNegative
from proxsae.training import Scaling, Trainer, TrainingState
from proxsae.training.autoencoder import initial_autoencoder
from proxsae.training.history import READ_EVERY

REPEATS = 7
# What every kernel is checked on: n, p, k of selections; n, p, k, d of products; p, d of matrices that Adam moves.
SELECTIONS = ((257, 5000, 37), (64, 2000, 30), (64, 4096, 384))
PRODUCTS = ((257, 600, 32, 768), (33, 50, 4, 17))
MATRICES = ((300, 768), (40, 17), (20, 4096))


def milliseconds(run: Callable[[], object], repeats: int = REPEATS, at_once: int = 1) -> float:
    """Return the median time of a call on the device, of so many series of calls."""
    for _ in range(5):  # compile, record
        run()
    times = []
    for _ in range(repeats):
        start, stop = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        for _ in range(at_once):
            run()
        stop.record()
        stop.synchronize()
        times.append(start.elapsed_time(stop) / at_once)
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
    of_dead = U[::4, ::2].contiguous()  # as if every other atom were dead
    rows = {
        "product (ms)": unit,
        "top-k": milliseconds(lambda: row_support(U, k, 1.0)) / unit,
        "batch top-k": milliseconds(lambda: matrix_support(U, k * n, 1.0)) / unit,
        "top-k of dead": milliseconds(lambda: row_support(of_dead, d // 2, 1.0)) / unit,
        "torch.topk": milliseconds(lambda: torch.topk(U, k, dim=1), 3) / unit,
        "decode": milliseconds(lambda: product(pattern, values, W)) / unit,
        "row dots": milliseconds(lambda: row_dots(pattern, G, W)) / unit,
        "sort": milliseconds(lambda: triton_sparse.columns_of(pattern.rows, pattern.indices, p)) / unit,
        "transposed": milliseconds(lambda: transposed_product(pattern, values, G)) / unit,
    }
    W.grad = torch.zeros_like(W)
    adam = torch.optim.Adam([W], fused=True)
    rows["Torch's Adam"] = milliseconds(adam.step) / unit
    rows["unit norm"] = milliseconds(lambda: W.div_(torch.linalg.vector_norm(W, dim=1, keepdim=True))) / unit
    moments = torch.zeros_like(W), torch.zeros_like(W)
    numbers = {"step": torch.ones((), device="cuda"), "learning_rate": torch.full((), 1e-3, device="cuda")}
    options = {**numbers, "betas": (0.9, 0.95), "epsilon": 1e-8, "on_sphere": True}
    rows["both in one"] = milliseconds(lambda: triton_adam.adam_step(W, W.grad, *moments, **options)) / unit
    return rows


def proxsae_step(d: int, p: int, k: int, n: int, precision: str, n_dead: int = 0) -> Callable[[], object]:
    """Return our training step, TopK, with so many atoms that are dead and stay so."""
    R = NonNegative() + Cardinality(k)
    generator = torch.Generator().manual_seed(0)
    encoder = Amortized(precision=precision)
    model = initial_autoencoder(encoder, R, p, d, generator, torch.float32, False).to("cuda")
    x = torch.randn(n, d, device="cuda")
    state = TrainingState.start(model, Scaling(torch.zeros(d, device="cuda"), 1.0), R)
    with torch.no_grad():
        model.encoder.weight[:n_dead] *= 1e-3  # never among the largest
        model.unused_for[:n_dead] = 2**40
    trainer = Trainer(state, learning_rate=1e-9 if n_dead else 1e-3)
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


def step_rows(d: int, p: int, k: int, n: int, precision: str, *, dense: bool, n_dead: int = 0) -> dict[str, float]:
    """Return time and memory of whole steps."""
    low = torch.bfloat16 if precision == "bfloat16" else torch.float32
    rows = {"product (ms)": product_time(d, p, n, low)}
    kept = 3 * 4 * 2 * p * d  # parameters and the two moments of Adam, in bytes
    for name, make, given, n_steps in (
        ("proxsae", proxsae_step, (d, p, k, n, precision, n_dead), READ_EVERY),
        ("dense", dense_step, (d, p, k, n, precision), 8),
    ):
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        rows |= {f"{name} step": float("nan"), f"{name} tokens/s": float("nan"), f"{name} memory": float("nan")}
        if name == "dense" and not dense:
            continue
        try:
            time = milliseconds(make(*given), 3, n_steps)
        except torch.cuda.OutOfMemoryError:
            continue
        rows[f"{name} step"] = time / rows["product (ms)"]
        rows[f"{name} tokens/s"] = 1000 * n / time
        rows[f"{name} memory"] = torch.cuda.max_memory_allocated() / kept
    return rows


def check(device: str) -> None:
    """Raise AssertionError where a kernel differs from its plain version on this device."""
    for p, d in MATRICES:
        for on_sphere in (False, True):
            check_adam(p, d, device, on_sphere=on_sphere)
    for dtype in (torch.float32, torch.float64, torch.bfloat16, torch.float16):
        for n, p, k, d in PRODUCTS:
            check_products(n, p, k, d, dtype, device)
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        for n, p, k in SELECTIONS if dtype == torch.float32 else SELECTIONS[:1]:
            U = torch.randn(n, p, device=device).to(dtype)
            for mirror in (-1.0, 1.0):
                check_selection(U, k, mirror)
                check_selection(U.round(), k, mirror)  # ties


def check_selection(U: torch.Tensor, k: int, mirror: float) -> None:
    """Hold the selection of k entries a row, those of positive rank, against a mask of all entries."""
    ranks = U.abs() if mirror == -1 else U
    columns = triton_top_k.select_in_rows(U, k, mirror)
    assert bool((columns.diff(dim=1) > 0).all()), "columns do not ascend"
    mask = torch.zeros_like(U, dtype=torch.bool).scatter_(1, columns, True)
    assert torch.equal(mask & (ranks > 0), top_k_mask(ranks, k)), f"select_in_rows, {U.dtype}"


def check_products(n: int, p: int, k: int, d: int, dtype: torch.dtype, device: str) -> None:
    """Hold the products with sparse codes against dense and sparse ones of Torch in float64."""
    pattern = Pattern(*pattern_of(top_k_mask(torch.randn(n, p, device=device), k)), n_columns=p)
    values = torch.randn(len(pattern.indices), device=device).to(dtype)
    D, G = torch.randn(p, d, device=device).to(dtype), torch.randn(n, d, device=device).to(dtype)
    Z = torch.zeros(n, p, dtype=torch.float64, device=device)
    Z[pattern.rows, pattern.indices] = values.double()
    offsets, entries, rows = triton_sparse.columns_of(pattern.rows, pattern.indices, p)
    found = {
        "product": triton_sparse.product(pattern.offsets, pattern.indices, values, D),
        "row_dots": triton_sparse.row_dots(pattern.offsets, pattern.indices, G, D),
        "transposed_product": triton_sparse.transposed_product(offsets, rows, entries, values, G),
    }
    expected = {
        "product": Z @ D.double(),
        "row_dots": row_dots_plain(pattern, G.double(), D.double()),
        "transposed_product": transposed_product_plain(pattern, values.double(), G.double()),
    }
    for name, plain in expected.items():
        error, allowed = (found[name].double() - plain).abs().max(), 8 * torch.finfo(dtype).eps * plain.abs().max()
        assert error <= allowed, f"{name}, {dtype}: {error:.3g} > {allowed:.3g}"


def check_adam(p: int, d: int, device: str, *, on_sphere: bool) -> None:
    """Hold four steps of a matrix, on the unit spheres of its rows or not, against Torch's Adam in float64."""
    ours = torch.nn.functional.normalize(torch.randn(p, d, device=device), dim=1)
    theirs = torch.nn.Parameter(ours.double())
    optimizer = torch.optim.Adam([theirs], lr=0.05)
    moments = torch.zeros_like(ours), torch.zeros_like(ours)
    for step in range(1, 5):
        gradient = torch.randn(p, d, device=device)
        numbers = {"step": torch.full((), float(step), device=device)}
        numbers |= {"learning_rate": torch.full((), 0.05, device=device)}
        options = {"betas": (0.9, 0.999), "epsilon": 1e-8, "on_sphere": on_sphere}
        triton_adam.adam_step(ours, gradient, *moments, **numbers, **options)
        theirs.grad = gradient.double()
        with torch.no_grad():
            if on_sphere:
                theirs.grad -= (theirs.grad * theirs).sum(1, keepdim=True) * theirs
            optimizer.step()
            if on_sphere:
                theirs /= theirs.norm(dim=1, keepdim=True)
    error = (ours.double() - theirs.detach()).abs().max()
    assert error <= 1e-4, f"adam_step on {(p, d)}: {error:.3g}"


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
    check("cuda")
    for precision in ("bfloat16", "float32"):
        steps, kernels = [], []
        for d, p, k, n in sizes(quick):
            label = f"d {d} p {p} k {k} n {n}"
            steps.append((label, step_rows(d, p, k, n, precision, dense=k == 32)))
            if k == 32 and n == 4096:
                rows = step_rows(d, p, k, n, precision, dense=False, n_dead=p // 2)
                steps.append((f"{label}, half dead", rows))
            if d == 2304:
                kernels.append((label, kernel_rows(d, p, k, n, getattr(torch, precision))))
            torch.cuda.empty_cache()
        print(f"\nwhole steps, TopK, product in {precision}: step in encoder products, memory in parameters and Adam")
        print(table(steps))
        print(f"\nkernel by kernel, in encoder products of {precision}\n{table(kernels)}", flush=True)


if __name__ == "__main__":
    main()
