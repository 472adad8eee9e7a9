"""Latents of a planted concept are found by contrast; taking them away takes it away, and nothing else."""

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor

from sae import TopK, TopKConfig
from sae.contrast import ChoiceConfig, Summary, alike, aurocs, chosen, contrast
from sae.edits import InterventionConfig
from sae.intervene import Intervention
from sae.sparse import SparseLatents
from sae.synthetic import Superposition, SuperpositionConfig
from sae.train import TrainConfig, train

D_IN, CONCEPT, N_TEXTS, N_TOKENS = 32, 3, 60, 12


def summary(dense: Tensor, text: Tensor, n_texts: int) -> Summary:
    values, indices = dense.topk(dense.shape[1], dim=1)
    return Summary.of(SparseLatents.of_table(values, indices, dense.shape[1]), text, n_texts)


def dense(n: int = 50, d: int = 8, seed: int = 0) -> Tensor:
    random = torch.Generator().manual_seed(seed)
    return torch.rand(n, d, generator=random) * (torch.rand(n, d, generator=random) < 0.3)


def test_a_summary_is_that_of_the_dense_matrix():
    z, text = dense(), torch.arange(50) % 7
    found = summary(z, text, 7)
    for i in range(7):
        own = z[text == i]
        torch.testing.assert_close(found.peak[i], own.max(0).values)
        torch.testing.assert_close(found.total[i], own.sum(0))
        assert torch.equal(found.n_fired[i], (own > 0).sum(0).float())
        assert found.n_tokens[i] == len(own)
    assert torch.equal(Summary.cat([found[:3], found[3:]]).peak, found.peak)


def test_contrasts_are_what_they_say():
    concept, other = (
        summary(dense(60, seed=1), torch.arange(60) // 6, 10),
        summary(dense(80, seed=2), torch.arange(80) // 8, 10),
    )
    found = contrast(concept, other)
    a, b = dense(60, seed=1).double(), dense(80, seed=2).double()
    torch.testing.assert_close(found.mean, a.mean(0) - b.mean(0))
    torch.testing.assert_close(found.frequency, (a > 0).double().mean(0) - (b > 0).double().mean(0))
    torch.testing.assert_close(found.of_texts, (a.view(10, 6, 8) > 0).any(1).double().mean(0))
    labels = np.repeat([1, 0], 10)
    for j in range(8):
        peaks = np.concatenate([concept.peak[:, j], other.peak[:, j]])
        assert found.auroc[j] == pytest.approx(roc_auc_score(labels, peaks))


def test_an_auroc_of_ties_is_one_half():
    assert aurocs(torch.zeros(4, 2), torch.zeros(3, 2)).tolist() == [0.5, 0.5]
    assert aurocs(torch.ones(4, 1), torch.zeros(3, 1)).tolist() == [1.0]


def test_latents_that_fire_on_everything_are_no_concepts():
    concept, other = torch.zeros(40, 4), torch.zeros(40, 4)
    concept[:, 0], other[:, 0] = 9.0, 7.0  # dense, and of the highest mean
    concept[::4, 1] = 1.0
    concept[0, 2] = 5.0  # in one text of ten
    text = torch.arange(40) // 4
    found = contrast(summary(concept, text, 10), summary(other, text, 10))
    assert int(found.mean.argmax()) == 0
    assert chosen(found, ChoiceConfig(by="mean", min_texts=0.2)) == [1]
    assert chosen(found, ChoiceConfig(by="mean", max_other=1.0)) == [0, 1, 2]
    assert chosen(found, ChoiceConfig(by="frequency", n_latents=1, max_other=1.0)) == [1]
    assert chosen(found, ChoiceConfig(by="auroc")) == [1, 2]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"by": "size"}, "choose mean, frequency or auroc"),
        ({"n_latents": 0}, "1 or more"),
        ({"max_other": 2.0}, "0 to 1"),
    ],
)
def test_choices_that_are_none_are_refused(settings: dict, said: str):
    with pytest.raises(ValueError, match=said):
        ChoiceConfig(**settings)


def test_a_contrast_of_nothing_is_refused():
    one = summary(dense(), torch.zeros(50, dtype=torch.long), 1)
    with pytest.raises(ValueError, match="one of the two is empty"):
        contrast(one[:0], one)


def test_others_alike_fire_as_often_and_are_none_of_them():
    density = torch.cat([torch.zeros(5), torch.logspace(-5, -1, 200)])
    latents = [50, 120, 200]
    for seed in range(10):
        drawn = alike(latents, density, seed)
        assert len(set(drawn) | set(latents)) == 6
        assert all(density[drawn] > 0)
        assert (density[drawn].log() - density[latents].log()).abs().max() < 1.0
    assert alike(latents, density, 3) == alike(latents, density, 3)
    assert len({tuple(alike(latents, density, seed)) for seed in range(10)}) > 5
    with pytest.raises(ValueError, match="1 other latents fire, 2 are needed"):
        alike([0, 1], torch.tensor([0.1, 0.1, 0.1, 0.0]), 0)


class TestPlanted:
    """A concept that only some texts have, in a model that holds more features than dimensions."""

    @pytest.fixture(scope="class", params=[0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (1, 2))])
    def toy(self, request: pytest.FixtureRequest) -> Superposition:
        cfg = SuperpositionConfig(n_features=40, d_in=D_IN, mean_active=2.0)
        return Superposition(cfg, torch.Generator().manual_seed(request.param))

    @pytest.fixture(scope="class")
    def sae(self, toy: Superposition) -> TopK:
        random = torch.Generator().manual_seed(1)
        sae = TopK(TopKConfig(d_in=D_IN, d_sae=64, k=4))
        batches = [toy.sample(256, random).x for _ in range(1000)]
        for _ in train(sae, batches, TrainConfig(n_steps=1000, lr=5e-3)):
            pass
        return sae

    def texts(self, toy: Superposition, *, with_it: bool, seed: int) -> tuple[Tensor, Tensor]:
        """`[text, token, d_in]` activations and `[text, token, n_features]` what they are made of."""
        found = toy.sample(N_TEXTS * N_TOKENS, torch.Generator().manual_seed(seed))
        coefficients = found.coefficients.clone()
        coefficients[:, CONCEPT] = 0
        if with_it:
            coefficients[::3, CONCEPT] = 1.0
        shape = (N_TEXTS, N_TOKENS, -1)
        return (coefficients @ toy.features).view(shape), coefficients.view(shape)

    def chosen(self, toy: Superposition, sae: TopK) -> list[int]:
        text = torch.arange(N_TEXTS).repeat_interleave(N_TOKENS)
        of = [
            Summary.of(sae.encode(self.texts(toy, with_it=with_it, seed=2)[0].flatten(0, 1)), text, N_TEXTS)
            for with_it in (True, False)
        ]
        return chosen(contrast(*of), ChoiceConfig(by="auroc", n_latents=3, max_other=0.1))

    def read_out(self, toy: Superposition, sae: TopK, edit: bool, feature: int) -> float:
        """How well a linear read-out that was fitted on untouched activations tells a feature, after the edit."""
        x, c = self.texts(toy, with_it=True, seed=3)
        fitted = torch.linalg.lstsq(x.flatten(0, 1), c.flatten(0, 1)[:, feature : feature + 1]).solution
        fresh, truth = self.texts(toy, with_it=True, seed=4)
        if edit:
            ablate = InterventionConfig(latents=tuple(self.chosen(toy, sae)), op="ablate")
            fresh = Intervention(sae, ablate).begin()(fresh, torch.ones(fresh.shape[:2], dtype=torch.bool), False)
        said, truth = (fresh.flatten(0, 1) @ fitted)[:, 0], truth.flatten(0, 1)[:, feature]
        return float(said[truth > 0].mean() - said[truth == 0].mean())

    def test_contrast_finds_its_latent(self, toy: Superposition, sae: TopK):
        nearest = int((sae.W_dec @ toy.features[CONCEPT]).argmax())
        assert nearest in self.chosen(toy, sae)

    def test_ablation_takes_it_away_and_leaves_an_orthogonal_one(self, toy: Superposition, sae: TopK):
        """Its read-out falls by nine tenths at least, that of one at right angles to it by a twentieth at most."""
        others = (toy.features @ toy.features[CONCEPT]).abs()
        others[CONCEPT] = 1
        orthogonal = int(others.argmin())
        lost = {
            feature: 1 - self.read_out(toy, sae, True, feature) / self.read_out(toy, sae, False, feature)
            for feature in (CONCEPT, orthogonal)
        }
        assert lost[CONCEPT] >= 0.9
        assert abs(lost[orthogonal]) <= 0.05
