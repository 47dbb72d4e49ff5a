"""The kernels for CUDA against the plain versions: on the device where there is one, else in Triton's interpreter."""

import runpy
from pathlib import Path

import pytest
import torch

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"  # interpreted there, see conftest.py
triton = pytest.importorskip("triton")

from proxsae.kernels import triton_adam, triton_sparse, triton_top_k  # noqa: E402
from proxsae.kernels.sparse import Pattern, row_dots_plain, transposed_product_plain  # noqa: E402
from proxsae.kernels.top_k import pattern_of, top_k_mask  # noqa: E402

DTYPES = [torch.float32, torch.bfloat16, torch.float16]


def draw(*shape, dtype=torch.float32, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(DEVICE, dtype)


def plain_selection(U, k, mirror):
    """The columns of the k largest ranks of each row, filled up with the lowest columns of rank <= 0."""
    ranks = (U.abs() if mirror == -1 else U).float().clamp(min=0)
    order = torch.sort(ranks, dim=1, descending=True, stable=True).indices[:, :k]
    return order.sort(1).values


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("mirror", [-1.0, 1.0])
@pytest.mark.parametrize(
    ("n", "p", "k"), [(5, 1000, 7), (3, 64, 64), (3, 64, 63), (2, 37, 5), (4, 1, 1), (3, 2100, 33), (2, 3000, 600)]
)
def test_the_k_largest_of_each_row(dtype, mirror, n, p, k):
    U = draw(n, p, dtype=dtype)
    assert torch.equal(triton_top_k.select_in_rows(U, k, mirror), plain_selection(U, k, mirror))


@pytest.mark.parametrize("k", [20, 700])
@pytest.mark.parametrize("mirror", [-1.0, 1.0])
def test_ties_go_to_the_lowest_column(mirror, k):
    U = draw(4, 3000).sign()  # more equals than chunks are held
    U[1] = 0.0
    U[2, ::7] = 2.0
    U[3] = -1.0
    selected = triton_top_k.select_in_rows(U, k, mirror)
    assert torch.equal(selected, plain_selection(U, k, mirror))
    mask = torch.zeros_like(U, dtype=torch.bool).scatter_(1, selected, True)
    ranks = U.abs() if mirror == -1 else U
    assert torch.equal(mask & (ranks > 0), top_k_mask(ranks, k))


class Noted:
    """A kernel in the place of another, which notes with what it is launched."""

    def __init__(self, kernel, launches):
        self.kernel, self.launches = kernel, launches

    def __getitem__(self, grid):
        def launch(*arguments, **constants):
            self.launches.append((arguments, constants))
            return self.kernel[grid](*arguments, **constants)

        return launch


@pytest.mark.parametrize(("p", "k"), [(96, 32), (512, 48), (1024, 32), (1024, 384), (4096, 384), (4096, 128), (9, 9)])
def test_no_row_of_numbers_without_ties_is_searched_as_a_whole(p, k, monkeypatch):
    """Nor does a program hold more than fits: k is half of the features where dead atoms are selected."""
    held, searched = [], []
    for name, launches in (("_hold_candidates", held), ("_select_in_whole_rows", searched)):
        monkeypatch.setattr(triton_top_k, name, Noted(getattr(triton_top_k, name), launches))
    U = draw(3, p).abs()
    assert torch.equal(triton_top_k.select_in_rows(U, k, 1.0), plain_selection(U, k, 1.0))
    assert all(constants["HELD"] * constants["CHUNK"] <= 2**14 for _, constants in held)
    assert not any((counts > constants["HELD"]).any() for (_, counts, *_), constants in searched)


def test_not_a_number_has_no_rank():
    U = draw(2, 60)
    U[:, 3] = torch.nan
    for k in (2, 50):
        selected = triton_top_k.select_in_rows(U, k, -1.0)
        assert torch.equal(selected, plain_selection(U.nan_to_num(0.0), k, -1.0))


def transposed(a):
    """The same numbers, in memory column after column."""
    return a.T.contiguous().T


@pytest.mark.parametrize(("p", "k"), [(1000, 7), (100, 60)])
def test_selection_reads_any_order_in_memory(p, k):
    U = draw(4, p)
    assert torch.equal(triton_top_k.select_in_rows(transposed(U), k, -1.0), plain_selection(U, k, -1.0))
    one = U[:1].expand(4, p)
    assert torch.equal(triton_top_k.select_in_rows(one, k, -1.0), plain_selection(one.contiguous(), k, -1.0))


def test_products_read_any_order_in_memory():
    pattern, values = codes(6, 50, 4, torch.float32)
    D, G = draw(50, 17, seed=2), draw(6, 17, seed=3)
    offsets, entries, rows = triton_sparse.columns_of(pattern.rows, pattern.indices, 50)
    ones = values.new_ones(()).expand(len(values))
    strided = torch.stack([values, values], dim=1)[:, 0]
    for other, v in ((ones, ones.contiguous()), (strided, values)):
        ours = triton_sparse.product(pattern.offsets, pattern.indices, other, transposed(D))
        assert torch.equal(ours, triton_sparse.product(pattern.offsets, pattern.indices, v, D))
        ours = triton_sparse.transposed_product(offsets, rows, entries, other, transposed(G))
        assert torch.equal(ours, triton_sparse.transposed_product(offsets, rows, entries, v, G))
    dots = triton_sparse.row_dots(pattern.offsets, pattern.indices, G, D)
    assert torch.equal(triton_sparse.row_dots(pattern.offsets, pattern.indices, transposed(G), transposed(D)), dots)
    one = G[:1].expand(6, 17)
    dots = triton_sparse.row_dots(pattern.offsets, pattern.indices, one.contiguous(), D)
    assert torch.equal(triton_sparse.row_dots(pattern.offsets, pattern.indices, one, D), dots)


def test_extremes_of_the_dtype_are_ordered():
    U = torch.tensor([[1e-45, 3e38, 0.0, -3e38, 1e-38, 2e-45]], device=DEVICE).repeat(2, 40)
    for mirror in (-1.0, 1.0):
        assert torch.equal(triton_top_k.select_in_rows(U, 90, mirror), plain_selection(U, 90, mirror))


def codes(n, p, k, dtype):
    U = draw(n, p)
    U[1] = 0.0  # a row without entries
    pattern = Pattern(*pattern_of(top_k_mask(U.abs(), k)), n_columns=p)
    return pattern, draw(len(pattern.indices), dtype=dtype, seed=1)


def close(one, other, dtype):
    scale = other.abs().max()
    return (one.double() - other.double()).abs().max() <= 8 * torch.finfo(dtype).eps * scale


@pytest.mark.parametrize("dtype", [*DTYPES, torch.float64], ids=str)
@pytest.mark.parametrize(("n", "p", "d", "k"), [(6, 50, 17, 4), (40, 3, 600, 2), (3, 9, 1, 9)])
def test_products_with_sparse_codes(dtype, n, p, d, k):
    pattern, values = codes(n, p, k, dtype)
    D, G = draw(p, d, dtype=dtype, seed=2), draw(n, d, dtype=dtype, seed=3)
    dense = torch.zeros(n, p, dtype=torch.float64, device=DEVICE)
    dense[pattern.rows, pattern.indices] = values.double()
    assert close(triton_sparse.product(pattern.offsets, pattern.indices, values, D), dense @ D.double(), dtype)

    dots = triton_sparse.row_dots(pattern.offsets, pattern.indices, G, D)
    assert close(dots, row_dots_plain(pattern, G.double(), D.double()), dtype)

    offsets, entries, rows = triton_sparse.columns_of(pattern.rows, pattern.indices, p)
    transposed = triton_sparse.transposed_product(offsets, rows, entries, values, G)
    assert close(transposed, transposed_product_plain(pattern, values.double(), G.double()), dtype)
    assert close(transposed, dense.T @ G.double(), dtype)


@pytest.mark.parametrize("on_sphere", [False, True])
@pytest.mark.parametrize("shape", [(7, 33), (3, 1), (2, 512)])
def test_adam_in_one_pass(on_sphere, shape):
    ours = torch.nn.functional.normalize(draw(*shape), dim=1)
    theirs = torch.nn.Parameter(ours.double())
    optimizer = torch.optim.Adam([theirs], lr=0.05)
    mean, square = torch.zeros_like(ours), torch.zeros_like(ours)
    for step in range(1, 5):
        gradient = draw(*shape, seed=step)
        theirs.grad = gradient.double()
        options = {
            "learning_rate": torch.tensor(0.05, device=DEVICE),
            "betas": (0.9, 0.999),
            "epsilon": 1e-8,
            "on_sphere": on_sphere,
        }
        number = torch.tensor(float(step), device=DEVICE)
        triton_adam.adam_step(ours, gradient, mean, square, step=number, **options)
        with torch.no_grad():
            if on_sphere:
                theirs.grad -= (theirs.grad * theirs).sum(1, keepdim=True) * theirs
            optimizer.step()
            if on_sphere:
                theirs /= theirs.norm(dim=1, keepdim=True)
    assert torch.allclose(ours.double(), theirs.detach(), rtol=1e-4, atol=1e-5)
    assert torch.allclose(mean.double(), optimizer.state[theirs]["exp_avg"], rtol=1e-3, atol=1e-5)


def test_adam_reads_any_gradient_and_moves_only_what_lies_row_after_row():
    gradient = draw(5, 33, seed=1)
    step, learning_rate = torch.tensor(1.0, device=DEVICE), torch.tensor(0.1, device=DEVICE)
    options = {"step": step, "learning_rate": learning_rate, "betas": (0.9, 0.999), "epsilon": 1e-8, "on_sphere": True}
    moved = []
    for given in (gradient, transposed(gradient)):
        matrix = torch.nn.functional.normalize(draw(5, 33), dim=1)
        triton_adam.adam_step(matrix, given, torch.zeros_like(matrix), torch.zeros_like(matrix), **options)
        moved.append(matrix)
    assert torch.equal(*moved)
    for i in range(3):
        parts = [transposed(draw(5, 33)) if i == j else draw(5, 33) for j in range(3)]
        with pytest.raises(ValueError, match="a matrix and its moments must be contiguous"):
            triton_adam.adam_step(parts[0], gradient, *parts[1:], **options)


@pytest.fixture
def check(monkeypatch):
    """What the benchmark does before it times, on small shapes."""
    benchmark = runpy.run_path(str(Path(__file__).parents[2] / "benchmarks" / "gpu.py"))
    shapes = {"SELECTIONS": ((3, 640, 5), (2, 50, 8)), "PRODUCTS": ((6, 50, 4, 17),), "MATRICES": ((3, 17),)}
    for name, few in shapes.items():
        monkeypatch.setitem(benchmark["check"].__globals__, name, few)
    return benchmark["check"]


def test_the_benchmark_holds_every_kernel_against_its_plain_version(check):
    torch.manual_seed(0)
    check(DEVICE)


@pytest.mark.parametrize(
    ("module", "name"),
    [
        (triton_top_k, "select_in_rows"),
        (triton_sparse, "product"),
        (triton_sparse, "row_dots"),
        (triton_sparse, "transposed_product"),
        (triton_adam, "adam_step"),
    ],
    ids=lambda part: part if isinstance(part, str) else "",
)
def test_the_benchmark_tells_of_a_kernel_that_is_wrong(module, name, check, monkeypatch):
    right = getattr(module, name)

    def wrong(first, *rest, **options):
        if name == "adam_step":
            first += 0.01  # a matrix that is moved
            return right(first, *rest, **options)
        result = right(first, *rest, **options).clone()
        result[-1] = result[-1].roll(1) if name == "select_in_rows" else result[-1] + 1
        return result

    monkeypatch.setattr(module, name, wrong)
    torch.manual_seed(0)
    with pytest.raises(AssertionError, match=name if name != "select_in_rows" else "ascend"):
        check(DEVICE)
