"""What a dictionary of activations promises: its atoms are tokens, builds agree, and overlap means something."""

import dataclasses
from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from sae import checkpoint
from sae.itda import ITDA, ITDAConfig, Provenance, decompose
from sae.itda_build import BuildConfig, Builder, Labelled, build, build_random, is_new, most_frequent
from sae.itda_overlap import jaccard, jaccard_of_models, layer_match

torch.set_num_threads(1)

N_CTX = 20


def gaussian(n: int, d_in: int, seed: int) -> Tensor:
    return torch.randn(n, d_in, generator=torch.Generator().manual_seed(seed))


def places(start: int, n: int) -> Provenance:
    """Rows of sequences of N_CTX tokens, two sequences a document."""
    row = torch.arange(start, start + n)
    return Provenance(row // N_CTX, row % N_CTX, row // (2 * N_CTX), row * 7 % 101)


def stream(x: Tensor, batch: int = 128) -> Iterator[Labelled]:
    for start in range(0, len(x), batch):
        some = x[start : start + batch]
        yield some, places(start, len(some))


def prototypes(n_rows: int = 6000, n: int = 200, d_in: int = 32, noise: float = 0.005) -> tuple[Tensor, Tensor]:
    """Rows that are a scaled prototype each, with a little noise, and the prototypes."""
    generator = torch.Generator().manual_seed(0)
    truth = F.normalize(gaussian(n, d_in, seed=1), dim=1)
    which = torch.randint(n, (n_rows,), generator=generator)
    x = truth[which] * (0.5 + 3 * torch.rand(n_rows, 1, generator=generator))
    return x + noise * gaussian(n_rows, d_in, seed=2) * x.norm(dim=1, keepdim=True), truth


def correlated(n_rows: int = 2000, d_in: int = 24, seed: int = 0) -> Tensor:
    """Rows with a common mean and a decaying spectrum, as residual streams have."""
    return gaussian(n_rows, d_in, seed) * torch.logspace(0.5, -1, d_in) + 1.5


@pytest.fixture(scope="module")
def rows() -> Tensor:
    return correlated()


@pytest.fixture(scope="module")
def itda(rows) -> ITDA:
    return build(stream(rows), BuildConfig(k=4, n_seed=8))


def same(a: ITDA, b: ITDA) -> bool:
    return a.cfg == b.cfg and all(torch.equal(t, b.state_dict()[name]) for name, t in a.state_dict().items())


# --- the build


@pytest.mark.parametrize("seed_rule", ["first", "frequent"])
def test_build_covers_planted_prototypes_with_few_atoms(seed_rule):
    x, truth = prototypes()
    found = build(stream(x), BuildConfig(k=1, target_cos=0.95, seed_rule=seed_rule))
    covered = (truth @ found.W_dec.t()).abs().max(dim=1).values > 0.95
    assert covered.double().mean() >= 0.99
    assert 200 <= found.cfg.d_sae <= 260


def test_a_higher_target_never_gives_fewer_atoms(rows):
    sizes = [build(stream(rows), BuildConfig(k=4, n_seed=8, target_cos=c)).cfg.d_sae for c in (0.7, 0.8, 0.9, 0.95)]
    assert sizes == sorted(sizes)
    assert sizes[0] < sizes[-1]


def test_two_builds_of_one_stream_are_identical(rows, itda):
    assert same(itda, build(stream(rows), BuildConfig(k=4, n_seed=8)))


def test_every_atom_is_the_direction_of_the_row_at_its_place(rows, itda):
    number = itda.atom_seq * N_CTX + itda.atom_pos
    torch.testing.assert_close(itda.W_dec.data, F.normalize(rows[number], dim=1))
    true = places(0, len(rows)).take(number)
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(itda.places, true, strict=True))
    assert len(number.unique()) == len(number)
    assert 8 < itda.cfg.d_sae < len(rows)


def test_every_row_reaches_the_target_or_is_an_atom_or_a_twin(rows):
    """Rows of one batch do not see each other's atoms, so batches of one row leave no row behind but twins."""
    some = rows[:200]
    found = build(stream(some, batch=1), BuildConfig(k=4, n_seed=1))
    assert (F.cosine_similarity(found(some).x_hat, some) >= 0.9).double().mean() > 0.97


def test_steps_add_up(rows):
    builder = Builder(BuildConfig(k=4, n_seed=8))
    steps = list(builder.grow(stream(rows)))
    assert sum(step.n_rows for step in steps) == steps[-1].n_tokens == len(rows)
    assert sum(step.n_added for step in steps) == steps[-1].n_atoms == builder.itda().cfg.d_sae
    assert all(0.9 < step.cosine <= 1 for step in steps[-5:])
    assert all(0 < step.l0 <= 4 for step in steps)


def test_a_caller_may_stop_early(rows):
    builder = Builder(BuildConfig(k=4, n_seed=8))
    for step in builder.grow(stream(rows)):
        if step.step == 3:
            break
    assert same(builder.itda(), build(stream(rows[: 3 * 128]), BuildConfig(k=4, n_seed=8)))


def test_the_cap_keeps_the_first_atoms(rows, itda):
    n = itda.cfg.d_sae // 2
    capped = build(stream(rows), BuildConfig(k=4, n_seed=8, max_atoms=n))
    assert torch.equal(capped.W_dec, itda.W_dec[:n])
    assert capped.cfg.n_tokens < itda.cfg.n_tokens == len(rows)
    assert capped.cfg.stream == itda.cfg.stream


def test_a_cap_below_the_seeds_holds(rows):
    assert build(stream(rows), BuildConfig(k=4, max_atoms=3)).cfg.d_sae == 3


def test_seeds_come_from_several_batches_if_one_has_too_few(rows):
    found = build(stream(rows[:60], batch=5), BuildConfig(k=24, target_cos=0.1, n_seed=17))
    assert torch.equal(found.atom_seq * N_CTX + found.atom_pos, torch.arange(17))


def test_the_most_frequent_rows_come_first():
    x = gaussian(4, 3, seed=0)[[0, 1, 2, 1, 3, 3, 2, 1]]
    assert most_frequent(x).tolist() == [1, 2, 4, 0]
    found = build(stream(x), BuildConfig(n_seed=2, seed_rule="frequent", target_cos=0.01, k=1))
    assert found.atom_pos[:2].tolist() == [1, 2]


@pytest.mark.parametrize("dedup_cos", [0.5, 0.8, 0.95])
def test_twins_are_dropped_greedily_in_order(dedup_cos):
    directions, atoms = F.normalize(gaussian(200, 4, seed=5), dim=1), F.normalize(gaussian(3, 4, seed=6), dim=1)
    kept: list[int] = []
    for number, direction in enumerate(directions):
        known = torch.cat([atoms, directions[kept]])
        if (known @ direction).abs().max() < dedup_cos:
            kept.append(number)
    assert is_new(directions, atoms, dedup_cos).nonzero().squeeze(1).tolist() == kept


def test_no_two_atoms_are_twins():
    x, _ = prototypes(n_rows=1500, noise=0.05)
    found = build(stream(x), BuildConfig(k=1, target_cos=0.95, dedup_cos=0.97))
    assert (found.W_dec @ found.W_dec.t()).fill_diagonal_(0).abs().max() < 0.97


def test_rows_of_zeros_are_counted_and_never_atoms(rows):
    x = rows.clone()
    x[::10] = 0
    builder = Builder(BuildConfig(k=4, n_seed=8))
    assert sum(step.n_zero for step in builder.grow(stream(x))) == 200
    found = builder.itda()
    assert ((found.atom_seq * N_CTX + found.atom_pos) % 10 != 0).all()
    assert found(x[:10]).x_hat[0].eq(0).all()


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_a_stream_with_values_that_are_not_finite_is_refused(rows, bad):
    x = rows.clone()
    x[300:302, 1] = bad
    with pytest.raises(ValueError, match="2 rows of batch 3 have NaN"):
        build(stream(x))


@pytest.mark.parametrize("x", [torch.zeros(0, 4), torch.zeros(9, 4)], ids=["empty", "zeros"])
def test_a_stream_without_a_direction_is_refused(x):
    with pytest.raises(ValueError, match="no atom was found in"):
        build(stream(x))


def test_batches_that_do_not_fit_are_refused(rows):
    with pytest.raises(ValueError, match="batch 1 has rows of shape"):
        build([(rows[:5], places(0, 4))])
    with pytest.raises(ValueError, match=r"batch 2 has rows of shape .*pass \[n, 24\]"):
        build([(rows[:5], places(0, 5)), (rows[:5, :3], places(5, 5))])


def test_half_precision_rows_are_built_in_float32(rows):
    found = build(stream(rows.half()), BuildConfig(k=4, n_seed=8))
    assert found.W_dec.dtype == torch.float32
    torch.testing.assert_close(found.W_dec.norm(dim=1), torch.ones(found.cfg.d_sae))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"k": 0}, "k=0"),
        ({"max_atoms": 0}, "max_atoms=0"),
        ({"n_seed": 0}, "n_seed=0"),
        ({"target_cos": 1.0}, "target_cos=1.0"),
        ({"target_cos": float("nan")}, "target_cos=nan"),
        ({"dedup_cos": 0.0}, "dedup_cos=0.0"),
    ],
    ids=lambda value: str(value)[:24],
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        BuildConfig(**settings)


# --- centring


def test_centring_subtracts_the_mean_and_adds_it_back(rows):
    mean = rows.mean(dim=0)
    centred = build(stream(rows), BuildConfig(k=4, n_seed=8, centre=True), mean)
    plain = build(stream(rows - mean), BuildConfig(k=4, n_seed=8))
    assert torch.equal(centred.W_dec, plain.W_dec)
    assert torch.equal(centred.b_dec, mean)
    assert centred.cfg.centre
    torch.testing.assert_close(centred(rows).x_hat, plain(rows - mean).x_hat + mean)


@pytest.mark.parametrize("centre", [True, False])
def test_a_mean_is_given_if_and_only_if_it_is_subtracted(rows, centre):
    with pytest.raises(ValueError, match=f"centre={centre}"):
        build(stream(rows), BuildConfig(centre=centre), None if centre else rows.mean(dim=0))


# --- the dictionary


def test_tau_is_the_papers_threshold_for_the_cosine():
    cfg = ITDAConfig(d_in=576, d_sae=4)
    assert cfg.tau == pytest.approx(3.47e-4, rel=1e-3)
    x, x_hat = gaussian(1, 576, seed=0), gaussian(1, 576, seed=1)
    cosine = F.cosine_similarity(x, x_hat).item()
    error = (F.normalize(x, dim=1) - F.normalize(x_hat, dim=1)).square().mean().item()
    assert error == pytest.approx((2 - 2 * cosine) / 576, rel=1e-4)
    with pytest.raises(ValueError, match="leave tau out"):
        ITDAConfig(d_in=576, d_sae=4, tau=1e-3)


def test_forward_is_decode_of_encode(rows, itda):
    out = itda(rows)
    assert torch.equal(out.x_hat, itda.decode(itda.encode(rows)))
    torch.testing.assert_close(out.x_hat, out.latents.dense() @ itda.W_dec)
    assert (out.latents.values < 0).any()
    keys = out.latents.rows * itda.cfg.d_sae + out.latents.indices
    assert len(keys.unique()) == len(keys)


def test_reconstruction_scales_with_the_row(rows, itda):
    torch.testing.assert_close(itda(7 * rows).x_hat, 7 * itda(rows).x_hat)


def test_folding_a_scale_gives_the_scaled_dictionary_on_raw_rows(rows):
    found = build(stream(3 * rows), BuildConfig(k=4, n_seed=8, centre=True), 3 * rows.mean(dim=0))
    scaled = found(3 * rows).x_hat
    found.fold_scale(3.0)
    torch.testing.assert_close(found(rows).x_hat, scaled / 3)


def test_nothing_of_it_is_trained(itda):
    assert not any(parameter.requires_grad for parameter in itda.parameters())
    assert set(itda.state_dict()) == {"W_dec", "b_dec", "unit", "atom_seq", "atom_pos", "atom_doc", "atom_token"}


def test_checkpoint_keeps_atoms_and_places(itda, tmp_path):
    checkpoint.save(tmp_path, itda)
    loaded = checkpoint.load(tmp_path)
    assert isinstance(loaded, ITDA)
    assert same(loaded, itda)


def test_decomposition_sums_to_the_reconstruction_and_names_tokens(rows, itda):
    x = rows[:30]
    found = decompose(itda, x)
    x_hat = torch.zeros_like(x).index_add_(0, found.row, found.coefficient.unsqueeze(1) * itda.W_dec[found.atom])
    torch.testing.assert_close(x_hat, itda(x).x_hat)
    assert torch.equal(found.places.seq, itda.atom_seq[found.atom])
    assert (found.row.diff() >= 0).all()
    within = found.row.diff() == 0
    assert (found.coefficient.abs().diff()[within] <= 0).all()
    assert (found.coefficient != 0).all()


def test_the_random_control_is_rows_of_the_stream(rows, itda):
    control = build_random(stream(rows), itda, torch.Generator().manual_seed(0))
    assert control.cfg == itda.cfg
    number = control.atom_seq * N_CTX + control.atom_pos
    torch.testing.assert_close(control.W_dec.data, F.normalize(rows[number], dim=1))
    assert len(number.unique()) == itda.cfg.d_sae
    again, other = (build_random(stream(rows), itda, torch.Generator().manual_seed(seed)) for seed in (0, 1))
    assert same(control, again)
    assert not same(control, other)


def test_the_random_control_is_even(rows, itda):
    draws = [build_random(stream(rows), itda, torch.Generator().manual_seed(seed)) for seed in range(30)]
    number = torch.cat([draw.atom_seq * N_CTX + draw.atom_pos for draw in draws]).double()
    error = len(rows) / (12 * len(number)) ** 0.5
    assert abs(number.mean().item() - (len(rows) - 1) / 2) < 4 * error


def test_the_random_control_of_a_shorter_stream_is_refused(rows, itda):
    with pytest.raises(ValueError, match="usable rows"):
        build_random(stream(rows[:5]), itda, torch.Generator())


# --- overlap


def layers(noise: float, seed: int, n_layers: int = 4) -> list[ITDA]:
    """Dictionaries of several layers of a model, or of a copy with noise: different rows for the same tokens."""
    cfg = BuildConfig(k=8, n_seed=4, target_cos=0.85)
    x = [correlated(1500, 24, seed=layer) for layer in range(n_layers)]
    noisy = [rows + noise * rows.norm(dim=1, keepdim=True) / 24**0.5 * gaussian(1500, 24, seed) for rows in x]
    return [build(stream(rows), cfg) for rows in noisy]


@pytest.fixture(scope="module")
def two_models() -> list[list[ITDA]]:
    return [layers(0.0, seed=0), layers(0.1, seed=99)]


def test_jaccard_with_oneself_is_one(itda):
    found = jaccard(itda, itda)
    assert found.jaccard == found.adjusted == 1
    n, of = itda.cfg.d_sae, itda.cfg.n_tokens
    assert found.chance == pytest.approx((n * n / of) / (2 * n - n * n / of))


def test_random_dictionaries_overlap_by_chance_alone(rows, itda):
    pairs = [
        [build_random(stream(rows), itda, torch.Generator().manual_seed(2 * n + m)) for m in (0, 1)] for n in range(20)
    ]
    adjusted = [jaccard(a, b).adjusted for a, b in pairs]
    assert abs(sum(adjusted) / len(adjusted)) < 0.03


def test_a_noisy_copy_is_most_alike_in_the_same_layer(two_models):
    found = layer_match(two_models)
    across = found.jaccard[0, 1]
    off_diagonal = across.clone().fill_diagonal_(0)
    assert (across.diagonal() > off_diagonal.max(dim=1).values).all()
    assert found.accuracy == 1
    assert found.n_judged == 2 * 4
    torch.testing.assert_close(found.jaccard[0, 0].diagonal(), torch.ones(4).double())
    assert across[2, 3].item() == pytest.approx(jaccard(two_models[0][2], two_models[1][3]).jaccard)


def test_self_pairs_count_only_when_asked_for(two_models):
    other = [two_models[0], two_models[1][::-1]]
    assert layer_match(other).accuracy == 0
    assert layer_match(other, exclude_self=False).accuracy == 0.5


def test_overlap_of_models_is_of_all_their_layers(two_models):
    a, b = two_models
    sets = [
        {(s, p) for d in model for s, p in zip(d.atom_seq.tolist(), d.atom_pos.tolist(), strict=True)}
        for model in (a, b)
    ]
    assert jaccard_of_models(a, b).jaccard == pytest.approx(len(sets[0] & sets[1]) / len(sets[0] | sets[1]))


@pytest.mark.parametrize("change", ["token_id", "pos", "order", "length"])
def test_dictionaries_of_different_streams_are_refused(rows, itda, change):
    x, labels = rows, places(0, len(rows))
    if change == "order":
        x, labels = x.flip(0), labels.take(torch.arange(len(x)).flip(0))
    elif change == "length":
        x, labels = x[:-1], labels.take(torch.arange(len(x) - 1))
    else:
        labels = labels._replace(**{change: getattr(labels, change) + 1})
    other = build([(x, labels)], BuildConfig(k=4, n_seed=8))
    with pytest.raises(ValueError, match="2 different token streams"):
        jaccard(itda, other)


def test_where_batches_end_is_no_part_of_the_stream(rows, itda):
    other = build(stream(rows, batch=77), BuildConfig(k=4, n_seed=8))
    assert jaccard(itda, other).jaccard > 0.3


def test_a_dictionary_that_was_not_built_is_refused(itda):
    blank = ITDA(dataclasses.replace(itda.cfg, stream=""))
    with pytest.raises(ValueError, match="does not know what it was built on"):
        jaccard(itda, blank)


@pytest.mark.parametrize("models", [[], [1], [1, 2]], ids=["none", "one", "ragged"])
def test_models_that_cannot_be_matched_are_refused(itda, models):
    with pytest.raises(ValueError, match="models with"):
        layer_match([[itda] * n for n in models])
