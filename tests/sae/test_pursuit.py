"""What matching pursuit and OMP promise."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from sae import pursuit
from sae.pursuit import Code, mp, omp

torch.set_num_threads(1)

PURSUITS: dict[str, Callable[..., Code]] = {"mp": mp, "omp": omp}


@pytest.fixture(params=sorted(PURSUITS))
def pursue(request) -> Callable[..., Code]:
    return PURSUITS[request.param]


def unit_rows(n: int, d_in: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return F.normalize(gaussian(n, d_in, seed).to(dtype), dim=1)


def gaussian(n: int, d_in: int, seed: int) -> Tensor:
    return torch.randn(n, d_in, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def spikes_and_waves(d_in: int) -> Tensor:
    """Unit vectors and Hadamard rows: 2·d_in atoms of coherence 1/√d_in."""
    waves = torch.ones(1, 1, dtype=torch.float64)
    while len(waves) < d_in:
        waves = torch.cat([torch.cat([waves, waves], 1), torch.cat([waves, -waves], 1)])
    return torch.cat([torch.eye(d_in, dtype=torch.float64), waves / d_in**0.5])


def dense(code: Code, n_atoms: int) -> Tensor:
    return code.values.new_zeros(len(code.values), n_atoms).scatter_add(1, code.indices, code.values)


def slow_mp(x: Tensor, atoms: Tensor, k: int) -> Tensor:
    """The definition, row by row: the dense code."""
    coefficients = x.new_zeros(len(x), len(atoms))
    for row, residual in enumerate(x.clone()):
        for _ in range(k):
            correlation = atoms @ residual
            atom = correlation.abs().argmax()
            coefficients[row, atom] += correlation[atom]
            residual -= correlation[atom] * atoms[atom]
    return coefficients


def slow_omp(x: Tensor, atoms: Tensor, k: int) -> Tensor:
    """The definition, row by row, by least squares."""
    coefficients = x.new_zeros(len(x), len(atoms))
    for row, residual in enumerate(x.clone()):
        chosen: list[int] = []
        for _ in range(k):
            chosen.append(int((atoms @ residual).abs().argmax()))
            fitted = torch.linalg.lstsq(atoms[chosen].t(), x[row]).solution
            residual = x[row] - fitted @ atoms[chosen]
        coefficients[row, chosen] = fitted
    return coefficients


@pytest.mark.parametrize("n_atoms", [5, 64, 128, 129, 300, 320])
@pytest.mark.parametrize("with_gram", [True, False], ids=["gram", "no_gram"])
def test_mp_is_its_definition(n_atoms, with_gram, monkeypatch):
    monkeypatch.setattr(pursuit, "_gram_pays", lambda *_: with_gram)
    x, atoms = gaussian(7, 12, seed=1), unit_rows(n_atoms, 12)
    torch.testing.assert_close(dense(mp(x, atoms, 9), n_atoms), slow_mp(x, atoms, 9))


@pytest.mark.parametrize("n_atoms", [5, 300])
def test_omp_is_its_definition(n_atoms):
    x, atoms = gaussian(7, 12, seed=1), unit_rows(n_atoms, 12)
    torch.testing.assert_close(dense(omp(x, atoms, 5), n_atoms), slow_omp(x, atoms, 5))


@pytest.mark.parametrize("k", [1, 2, 4])
def test_omp_recovers_sparse_codes_below_the_coherence_bound(k):
    atoms = spikes_and_waves(64)
    coherence = (atoms @ atoms.t()).fill_diagonal_(0).abs().max()
    assert coherence < 1 / (2 * k - 1)
    generator = torch.Generator().manual_seed(k)
    support = torch.rand(200, 128, generator=generator).argsort(dim=1)[:, :k]
    truth = torch.zeros(200, 128, dtype=torch.float64).scatter_(1, support, gaussian(200, k, seed=k))
    torch.testing.assert_close(dense(omp(truth @ atoms, atoms, k), 128), truth)


def test_residual_never_grows_with_k(pursue):
    x, atoms = gaussian(50, 16, seed=2), unit_rows(80, 16)
    residuals = torch.stack([(x - pursue(x, atoms, k).decode(atoms)).norm(dim=1) for k in range(1, 20)])
    assert (residuals.diff(dim=0) <= 1e-12).all()
    assert (residuals[-1] < 0.5 * residuals[0]).all()


def test_omp_leaves_less_than_mp():
    x, atoms = gaussian(50, 16, seed=2), unit_rows(80, 16)
    errors = [(x - found(x, atoms, 8).decode(atoms)).square().sum() for found in (omp, mp)]
    assert errors[0] < errors[1]


def test_one_step_takes_the_atom_of_the_largest_absolute_cosine(pursue):
    x, atoms = gaussian(50, 16, seed=3), unit_rows(200, 16)
    cosines = F.normalize(x, dim=1) @ atoms.t()
    code = pursue(x, atoms, 1)
    assert torch.equal(code.indices[:, 0], cosines.abs().argmax(dim=1))
    torch.testing.assert_close(code.values[:, 0] / x.norm(dim=1), cosines.gather(1, code.indices)[:, 0])
    assert (code.values < 0).any()


@pytest.mark.parametrize(("n_atoms", "k"), [(3, 1), (3, 3), (3, 40), (6, 40), (200, 40), (41, 40)])
def test_indices_are_distinct_and_in_range(pursue, n_atoms, k):
    x, atoms = gaussian(20, 4, seed=4), unit_rows(n_atoms, 4)
    code = pursue(x, atoms, k)
    assert code.values.shape == code.indices.shape == (20, min(k, n_atoms))
    assert all(len(set(row)) == len(row) and 0 <= min(row) <= max(row) < n_atoms for row in code.indices.tolist())


def test_repeated_choices_are_summed():
    atoms = F.normalize(torch.tensor([[1.0, 0.2], [0.2, 1.0]], dtype=torch.float64), dim=1)
    x = torch.tensor([[1.0, 1.1]], dtype=torch.float64)
    code = mp(x, atoms, 60)
    torch.testing.assert_close(dense(code, 2) @ atoms, x)


def test_code_does_not_depend_on_the_blocks(pursue, monkeypatch):
    x, atoms = gaussian(33, 16, seed=5), unit_rows(200, 16)
    whole = pursue(x, atoms, 6)
    monkeypatch.setattr(pursuit, "BLOCK_VALUES", 900)
    blockwise = pursue(x, atoms, 6)
    assert torch.equal(whole.indices, blockwise.indices)
    torch.testing.assert_close(whole.values, blockwise.values)


def test_nothing_is_chosen_for_a_row_of_zeros(pursue):
    code = pursue(torch.zeros(2, 16), unit_rows(30, 16, dtype=torch.float32), 5)
    assert (code.values == 0).all()


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_a_row_that_is_not_finite_has_nan_values_and_spoils_no_other(pursue, bad):
    x, atoms = gaussian(9, 16, seed=6), unit_rows(200, 16)
    clean = pursue(x, atoms, 5)
    x[4, 3] = bad
    spoiled = pursue(x, atoms, 5)
    others = torch.arange(9) != 4
    assert spoiled.values[4].isnan().all()
    torch.testing.assert_close(spoiled.values[others], clean.values[others])


def test_an_exact_atom_needs_one_atom_in_float32(pursue):
    """Guards against fitting the rounding of what is left."""
    atoms = unit_rows(200, 64, dtype=torch.float32)
    code = pursue(17.3 * atoms[:20], atoms, 8)
    assert ((code.values != 0).sum(dim=1) == 1).all()
    torch.testing.assert_close(code.values[:, 0], torch.full((20,), 17.3))


def test_omp_stays_finite_where_atoms_are_dependent():
    few = unit_rows(3, 8, dtype=torch.float32)
    atoms = torch.cat([few, few, -few])
    x = gaussian(10, 8, seed=7).float()
    code = omp(x, atoms, 9)
    assert code.values.isfinite().all()
    assert ((code.values != 0).sum(dim=1) <= 3).all()
    projected = x @ torch.linalg.pinv(few) @ few
    torch.testing.assert_close(code.decode(atoms), projected, rtol=1e-4, atol=1e-4)


def test_more_steps_than_dimensions_reach_the_row(pursue):
    x, atoms = gaussian(10, 6, seed=8), unit_rows(40, 6)
    torch.testing.assert_close(pursue(x, atoms, 400 if pursue is mp else 20).decode(atoms), x, rtol=1e-6, atol=1e-6)


def test_no_rows_have_an_empty_code(pursue):
    code = pursue(torch.zeros(0, 16), unit_rows(30, 16, dtype=torch.float32), 5)
    assert code.values.shape == code.indices.shape == (0, 5)


@pytest.mark.parametrize(
    ("x", "atoms", "k", "message"),
    [
        (torch.ones(2, 4), torch.eye(4), 0, "k=0"),
        (torch.ones(2, 4), torch.zeros(0, 4), 1, "no atoms"),
        (torch.ones(2, 4), 2 * torch.eye(4), 1, "atom 0 has norm 2"),
        (torch.ones(2, 4), torch.full((3, 4), torch.nan), 1, "atom 0 has norm nan"),
    ],
    ids=["k", "no_atoms", "norm", "nan"],
)
def test_what_cannot_be_pursued_is_refused(pursue, x, atoms, k, message):
    with pytest.raises(ValueError, match=message):
        pursue(x, atoms, k)
