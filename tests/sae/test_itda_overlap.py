"""What overlap of dictionaries says of rotated copies, and of tokens that are shared by construction."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from sae.itda import ITDA, Provenance
from sae.itda_build import BuildConfig, Labelled, build
from sae.itda_overlap import chosen_tokens, jaccard, layer_match, seed_tokens

N_CTX = 20


def rows(layer: int, n: int = 1500, d_in: int = 24) -> Tensor:
    generator = torch.Generator().manual_seed(layer)
    return torch.randn(n, d_in, generator=generator) * torch.logspace(0.5, -1, d_in) + 1.5


def stream(x: Tensor) -> Iterator[Labelled]:
    for start in range(0, len(x), 128):
        some = x[start : start + 128]
        row = torch.arange(start, start + len(some))
        yield some, Provenance(row // N_CTX, row % N_CTX, row // (2 * N_CTX), row * 7 % 101)


def built(x: Tensor, n_seed: int = 4) -> ITDA:
    return build(stream(x), BuildConfig(k=8, n_seed=n_seed, target_cos=0.85))


def places(itda: ITDA) -> list[tuple[int, int]]:
    return list(zip(itda.atom_seq.tolist(), itda.atom_pos.tolist(), strict=True))


@pytest.fixture(scope="module")
def pair() -> tuple[ITDA, ITDA]:
    return built(rows(0), n_seed=6), built(rows(1), n_seed=9)


def test_layers_of_rotated_copies_are_all_matched():
    turned = [rows(n) @ torch.linalg.qr(rows(50 + n, 24).double()).Q.float() for n in range(4)]
    found = layer_match([[built(rows(n)) for n in range(4)], [built(x) for x in turned]])
    assert found.accuracy == 1
    assert found.n_judged == 8
    assert found.jaccard[0, 1].diagonal().min() > 0.95


def test_dictionaries_begin_with_the_same_tokens(pair):
    a, b = pair
    seeds = seed_tokens(a, b, (6, 9))
    assert len(seeds) == 9
    assert set(places(a)[:6]) <= set(places(b)[:9])


def test_tokens_that_both_began_with_are_left_out_on_both_sides(pair):
    a, b = pair
    found = jaccard(a, b, seed_tokens(a, b, (6, 9)))
    begun = set(places(b)[:9])
    left_a, left_b = (set(places(itda)) - begun for itda in pair)
    assert found.jaccard == pytest.approx(len(left_a & left_b) / len(left_a | left_b))
    by_chance = len(left_a) * len(left_b) / (1500 - 9)
    assert found.chance == pytest.approx(by_chance / (len(left_a) + len(left_b) - by_chance))
    assert found.jaccard < jaccard(a, b).jaccard


def test_unrelated_rows_overlap_by_chance_once_those_are_left_out():
    """Without a common spectrum nothing but chance is left."""
    noise = [torch.randn(3000, 16, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1)]
    a, b = (build(stream(x), BuildConfig(k=2, n_seed=300, target_cos=0.82)) for x in noise)
    assert jaccard(a, b).adjusted > 0.2
    assert abs(jaccard(a, b, seed_tokens(a, b, (300, 300))).adjusted) < 0.05


@pytest.mark.parametrize("leave_out", [False, True])
def test_chosen_tokens_add_up_to_the_overlap(pair, leave_out):
    a, b = pair
    without = seed_tokens(a, b, (6, 9)) if leave_out else None
    chosen = chosen_tokens(a, b, without)
    assert chosen.by_both.double().mean().item() == pytest.approx(jaccard(a, b, without).jaccard)
    docs = {place: doc for itda in pair for place, doc in zip(places(itda), itda.atom_doc.tolist(), strict=True)}
    left = [doc for (seq, pos), doc in docs.items() if without is None or (seq << 32 | pos) not in without.tolist()]
    assert sorted(chosen.doc_id.tolist()) == sorted(left)


def test_dictionaries_that_are_all_seeds_have_no_overlap_beyond(pair):
    a, b = pair
    with pytest.raises(ValueError, match="no atom but the rows that it began with"):
        jaccard(a, b, seed_tokens(a, b, (10**6, 10**6)))
