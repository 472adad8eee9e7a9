"""The algebra of edits: what they do, where, what they leave bit for bit, and how they go together."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from variants import CASES, build, moved, rows

from sae import SAE, TopK, TopKConfig
from sae.edits import OPERATIONS, WHEN, DirectionConfig, InterventionConfig
from sae.intervene import Intervention, Redirected, Trace, push

torch.set_num_threads(1)

D_IN, D_SAE = 10, 30
OF_SEVERAL = ("transcoder", "skip_transcoder", "crosscoder")
"""They write elsewhere than they read."""


@pytest.fixture(scope="module")
def sae() -> TopK:
    sae = TopK(TopKConfig(d_in=D_IN, d_sae=D_SAE, k=4)).double()
    sae.initialise(residual().flatten(0, 1), torch.Generator().manual_seed(0))
    return sae


@pytest.fixture(scope="module")
def latent(sae: TopK) -> int:
    """One that is active in some positions and not in others."""
    active = sae.encode(residual().flatten(0, 1)).dense() > 0
    return int((active.double().mean(0) - 0.1).abs().argmin())


def residual() -> Tensor:
    return 2 + torch.randn(3, 20, D_IN, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def everywhere(h: Tensor) -> Tensor:
    return torch.ones(h.shape[:2], dtype=torch.bool)


def dense(sae: SAE, h: Tensor) -> Tensor:
    return sae.encode(h.flatten(0, 1)).dense().unflatten(0, h.shape[:2])


def done(
    sae: SAE,
    h: Tensor,
    *configs: InterventionConfig | DirectionConfig,
    touch: Tensor | None = None,
    sink_norm: float = 1e30,
) -> tuple[Tensor, Trace]:
    running = Intervention(sae, *configs, sink_norm=sink_norm).begin()
    return running(h, everywhere(h) if touch is None else touch, False), running.trace


def config(op: str, latents: tuple[int, ...], value: float = 1.5, **settings: object) -> InterventionConfig:
    values = (value,) if OPERATIONS[op].takes_value else ()
    return InterventionConfig(latents=latents, op=op, values=values, **settings)  # pyright: ignore[reportArgumentType]


def changed_latents(op: str, z: Tensor, value: float) -> Tensor:
    """By the definitions, one after the other."""
    return {"clamp": torch.full_like(z, value), "add": z + value, "scale": z * value, "ablate": torch.zeros_like(z)}[op]


@pytest.mark.parametrize("op", [op for op in OPERATIONS if op != "project_out"])
@pytest.mark.parametrize("n", [1, 5])
def test_x_moves_along_decoder_rows_by_what_latents_are_changed_by(sae: TopK, latent: int, op: str, n: int):
    h, chosen = residual(), (latent, *(i for i in range(D_SAE) if i != latent))[:n]
    z = dense(sae, h)[..., list(chosen)]
    expected = h + (changed_latents(op, z, 1.5) - z) @ sae.W_dec[list(chosen)]
    torch.testing.assert_close(done(sae, h, config(op, chosen))[0], expected)


@pytest.mark.parametrize("op", [op for op in OPERATIONS if op != "project_out"])
def test_in_full_the_reconstruction_from_changed_latents_takes_its_place(sae: TopK, latent: int, op: str):
    h = residual()
    z = dense(sae, h)
    z[..., latent] = changed_latents(op, z[..., latent], 1.5)
    expected = z @ sae.W_dec + sae.b_dec
    torch.testing.assert_close(done(sae, h, config(op, (latent,), decode="full"))[0], expected)


def test_projecting_out_leaves_nothing_along_the_rows_and_all_that_is_across_them(sae: TopK):
    h, chosen = residual(), (0, 1, 2, 7)
    edited, _ = done(sae, h, config("project_out", chosen))
    rows = sae.W_dec[list(chosen)]
    torch.testing.assert_close(edited @ rows.t(), torch.zeros(3, 20, 4, dtype=h.dtype), atol=1e-12, rtol=0)
    gone = torch.linalg.lstsq(rows.t(), (h - edited).flatten(0, 1).t()).solution
    torch.testing.assert_close((rows.t() @ gone).t(), (h - edited).flatten(0, 1))
    again, _ = done(sae, edited, config("project_out", chosen))
    torch.testing.assert_close(again, edited, atol=1e-12, rtol=0)


def test_projections_go_together_as_one_of_all_their_latents(sae: TopK, latent: int):
    h = residual()
    one, other = config("project_out", (0,)), config("project_out", (1, 2))
    together, _ = done(sae, h, config("project_out", (0, 1, 2)))
    torch.testing.assert_close(done(sae, h, one, other)[0], together)
    torch.testing.assert_close(done(sae, h, other, one)[0], together)
    fires = dense(sae, h)[..., latent] > 0
    some, _ = done(sae, h, one, config("project_out", (1, 2), when="token", condition=(latent,)))
    torch.testing.assert_close(some[fires], together[fires])
    torch.testing.assert_close(some[~fires], done(sae, h, one)[0][~fires])


def test_rows_that_say_the_same_are_projected_out_once(sae: TopK):
    twin = TopK(TopKConfig(d_in=D_IN, d_sae=D_SAE, k=4)).double()
    twin.load_state_dict(sae.state_dict())
    with torch.no_grad():
        twin.W_dec[1] = -twin.W_dec[0]
    h = residual()
    torch.testing.assert_close(
        done(twin, h, config("project_out", (0, 1)))[0], done(twin, h, config("project_out", (0,)))[0]
    )


class TestIdentities:
    """Bit for bit."""

    @pytest.mark.parametrize(("op", "value"), [("add", 0.0), ("scale", 1.0)])
    @pytest.mark.parametrize("when", WHEN)
    def test_strength_0_and_gain_1(self, sae: TopK, op: str, value: float, when: str):
        h = residual()
        edited, trace = done(sae, h, config(op, tuple(range(D_SAE)), value, when=when))
        assert torch.equal(edited, h)
        assert trace.n_altered == 0
        assert trace.mean_length is None

    def test_clamp_to_the_current_value(self, sae: TopK, latent: int):
        h = residual()[:1, :1]
        assert torch.equal(done(sae, h, config("clamp", (latent,), dense(sae, h)[0, 0, latent].item()))[0], h)

    def test_ablate_and_scale_where_the_latent_is_silent(self, sae: TopK, latent: int):
        h = residual()
        silent = dense(sae, h)[..., latent] == 0
        assert silent.any()
        assert not silent.all()
        for op in ("ablate", "scale"):
            edited, trace = done(sae, h, config(op, (latent,), 3.0))
            assert torch.equal(edited[silent], h[silent])
            assert not torch.isclose(edited[~silent], h[~silent]).all(dim=-1).any()
            assert torch.equal(trace.altered[0], ~silent)

    def test_ablate_twice_is_once_and_the_last_clamp_holds(self, sae: TopK, latent: int):
        h, ablate = residual(), config("ablate", (latent,))
        assert torch.equal(done(sae, h, ablate, ablate)[0], done(sae, h, ablate)[0])
        assert torch.equal(
            done(sae, h, config("clamp", (latent,), 9.0), config("clamp", (latent,), 2.0))[0],
            done(sae, h, config("clamp", (latent,), 2.0))[0],
        )

    @pytest.mark.parametrize("when", WHEN)
    @pytest.mark.parametrize("decode", ["delta", "full"])
    def test_what_may_not_be_touched(self, sae: TopK, latent: int, when: str, decode: str):
        h = residual()
        touch = torch.rand(h.shape[:2], generator=torch.Generator().manual_seed(2)) < 0.5
        edited, trace = done(sae, h, config("add", (latent,), 4.0, when=when, decode=decode), touch=touch)
        assert torch.equal(edited[~touch], h[~touch])
        assert torch.equal(trace.touchable[0], touch)
        assert not (trace.altered[0] & ~touch).any()

    def test_nothing_to_touch(self, sae: TopK, latent: int):
        h = residual()
        nowhere = torch.zeros(h.shape[:2], dtype=torch.bool)
        for cfg in (
            config("add", (latent,)),
            config("clamp", (latent,), decode="full"),
            config("project_out", (latent,)),
        ):
            assert torch.equal(done(sae, h, cfg, touch=nowhere)[0], h)


class TestGoingTogether:
    def test_edits_of_one_latent_compose_in_their_order(self, sae: TopK, latent: int):
        h = residual()
        z = dense(sae, h)[..., latent : latent + 1]
        for ops in (("add", "scale"), ("scale", "add"), ("clamp", "scale"), ("ablate", "add"), ("add", "clamp")):
            wanted = z
            for op in ops:
                wanted = changed_latents(op, wanted, 1.5)
            edited, _ = done(sae, h, *(config(op, (latent,)) for op in ops))
            torch.testing.assert_close(edited, h + (wanted - z) * sae.W_dec[latent])

    def test_edits_of_different_latents_commute(self, sae: TopK, latent: int):
        h, one, other = residual(), config("clamp", (latent,), 3.0), config("scale", ((latent + 1) % D_SAE,), 4.0)
        torch.testing.assert_close(done(sae, h, one, other)[0], done(sae, h, other, one)[0])

    def test_all_read_what_was_there_before_any(self, sae: TopK, latent: int):
        """A condition is about the model's own activations, not about what another edit has made of them."""
        h, other = residual(), (latent + 1) % D_SAE
        follows = config("add", (other,), 2.0, when="token", condition=(latent,))
        both, _ = done(sae, h, config("ablate", (latent,)), follows)
        ablated, _ = done(sae, h, config("ablate", (latent,)))
        fired = dense(sae, h)[..., latent] > 0
        torch.testing.assert_close(both - ablated, fired[..., None] * 2.0 * sae.W_dec[other])


class TestTiers:
    @settings(max_examples=60, deadline=None)
    @given(
        above=st.floats(0, 3),
        n=st.integers(1, 4),
        first=st.integers(0, D_SAE - 4),
        op=st.sampled_from(list(OPERATIONS)),
    )
    def test_token_is_in_input_is_in_always(self, sae: TopK, above: float, n: int, first: int, op: str):
        h, chosen = residual(), tuple(range(first, first + n))
        altered = {
            when: done(sae, h, config(op, chosen, 2.0, when=when, above=(above,)))[1].altered[0] for when in WHEN
        }
        assert not (altered["token"] & ~altered["input"]).any()
        assert not (altered["input"] & ~altered["always"]).any()

    def test_they_are_what_they_say(self, sae: TopK, latent: int):
        h = residual()
        fired = dense(sae, h)[..., latent] > 0.5
        since = fired.cumsum(1) > 0
        expected = {"always": torch.ones_like(fired), "input": since, "token": fired}
        assert fired.any()
        assert not since.all()
        for when, where in expected.items():
            _, trace = done(sae, h, config("add", (latent,), 2.0, when=when, above=(0.5,)))
            assert torch.equal(trace.altered[0], where)

    def test_not_causal_is_the_whole_sequence_or_nothing(self, sae: TopK, latent: int):
        h = residual()
        some = (dense(sae, h)[..., latent] > 0.5).any(dim=1, keepdim=True).expand(3, 20)
        _, trace = done(sae, h, config("add", (latent,), when="input", above=(0.5,), causal=False))
        assert torch.equal(trace.altered[0], some)

    def test_where_the_condition_is_never_met_x_comes_back_bit_for_bit(self, sae: TopK, latent: int):
        h = residual()
        for when in ("input", "token"):
            for decode in ("delta", "full"):
                cfg = config("add", (latent,), 5.0, when=when, above=(1e6,), decode=decode)
                assert torch.equal(done(sae, h, cfg)[0], h)

    def test_each_latent_of_a_condition_may_have_a_threshold_of_its_own(self, sae: TopK, latent: int):
        h, others = residual(), (latent, (latent + 1) % D_SAE)
        z = dense(sae, h)[..., list(others)]
        cfg = config("add", (0,), when="token", condition=others, above=(0.5, 1.5))
        assert torch.equal(done(sae, h, cfg)[1].altered[0], (z > torch.tensor([0.5, 1.5])).any(dim=-1))

    def test_another_latent_may_be_the_condition(self, sae: TopK, latent: int):
        h, other = residual(), (latent + 3) % D_SAE
        _, trace = done(sae, h, config("add", (other,), when="token", condition=(latent,)))
        assert torch.equal(trace.altered[0], dense(sae, h)[..., latent] > 0)

    @pytest.mark.parametrize("when", WHEN)
    @pytest.mark.parametrize("cuts", [(7,), (1, 2, 3, 11), tuple(range(1, 20))])
    def test_a_sequence_in_pieces_is_edited_as_in_one(self, sae: TopK, latent: int, when: str, cuts: tuple[int, ...]):
        h, cfg = residual(), config("add", (latent,), 2.0, when=when, above=(0.5,))
        whole, _ = done(sae, h, cfg)
        running = Intervention(sae, cfg).begin()
        pieces = [
            running(piece, everywhere(piece), number > 0) for number, piece in enumerate(h.tensor_split(cuts, dim=1))
        ]
        assert torch.equal(torch.cat(pieces, dim=1), whole)
        assert torch.equal(torch.cat(running.trace.altered, dim=1), done(sae, h, cfg)[1].altered[0])

    def test_a_new_sequence_starts_anew(self, sae: TopK, latent: int):
        h, cfg = residual(), config("add", (latent,), 2.0, when="input", above=(0.5,))
        running = Intervention(sae, cfg).begin()
        first = running(h, everywhere(h), False)
        assert torch.equal(running(h, everywhere(h), False), first)

    def test_what_is_not_causal_cannot_be_decided_while_a_text_is_written(self, sae: TopK, latent: int):
        h, cfg = residual(), config("add", (latent,), when="input", causal=False)
        running = Intervention(sae, cfg).begin()
        running(h, everywhere(h), False)
        with pytest.raises(ValueError, match="use causal=True"):
            running(h[:, :1], everywhere(h[:, :1]), True)

    def test_sinks_are_left_alone_and_meet_no_condition(self, sae: TopK, latent: int):
        h = residual()
        h[:, 3] *= 100
        cfg = config("add", (latent,), 2.0, when="input", condition=tuple(range(D_SAE)))
        edited, trace = done(sae, h, cfg, sink_norm=50.0)
        assert torch.equal(edited[:, 3], h[:, 3])
        assert not trace.touchable[0][:, 3].any()
        only = torch.zeros(3, 20, dtype=torch.bool)
        only[:, 3] = True
        assert torch.equal(done(sae, h, cfg, touch=only, sink_norm=50.0)[0], h)


@pytest.mark.parametrize("case", [case for case in CASES if not case.startswith(OF_SEVERAL)])
def test_every_dictionary_of_one_hook_point_can_be_steered_with(case: str):
    one, h = moved(case), rows(12).unflatten(0, (2, 6))
    z = dense(one, h.to(one.W_dec))
    chosen = z.sum((0, 1)).topk(2).indices.tolist()
    assert z[..., chosen].any()
    edited, _ = done(one, h, config("ablate", tuple(chosen)))
    torch.testing.assert_close(edited, h - z[..., chosen] @ one.W_dec[chosen])


def test_the_trace_tells_lengths_as_shares_of_x(sae: TopK, latent: int):
    h = residual()
    edited, trace = done(sae, h, config("add", (latent,), 2.0))
    expected = ((edited - h).norm(dim=-1) / h.norm(dim=-1)).mean().item()
    assert trace.mean_length == pytest.approx(expected)
    assert trace.n_altered == 60


@pytest.mark.parametrize("op", ["add", "project_out"])
def test_nothing_is_encoded_where_no_latent_has_to_be_known(sae: TopK, latent: int, op: str, monkeypatch):
    monkeypatch.setattr(TopK, "encode", lambda *_: pytest.fail("encoded"))
    done(sae, residual(), config(op, (latent,)))


def test_the_dtype_of_the_stream_is_kept_and_the_input_is_not_changed(sae: TopK, latent: int):
    h = residual().to(torch.float16)
    before = h.clone()
    edited, _ = done(sae, h, config("clamp", (latent,), 2.0))
    assert edited.dtype == torch.float16
    assert torch.equal(h, before)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"op": "nudge"}, "op='nudge' is not known: choose one of clamp, add"),
        ({"when": "never"}, "when='never' is not known: choose one of always, input, token"),
        ({"decode": "half"}, "choose one of delta, full"),
        ({"latents": ()}, "edits nothing: name at least one"),
        ({"latents": (1, 1)}, "names one twice"),
        ({"values": ()}, "clamp of 1 latents takes 1 values, not 0"),
        ({"values": (1.0, 2.0)}, "not 2"),
        ({"op": "ablate"}, "ablate of 1 latents takes 0 values, not 1"),
        ({"values": (float("nan"),)}, "choose finite numbers"),
        ({"above": (float("inf"),)}, "choose finite numbers"),
        ({"above": (1.0, 2.0)}, "nor one for each"),
    ],
)
def test_what_cannot_be_is_refused(settings: dict, said: str):
    with pytest.raises(ValueError, match=said):
        InterventionConfig(**{"latents": (1,), "values": (1.0,), **settings})


@pytest.mark.parametrize(
    "settings", [{"latents": (D_SAE,)}, {"latents": (-1,)}, {"condition": (D_SAE,), "when": "token"}]
)
def test_a_latent_that_does_not_exist_is_refused(sae: TopK, settings: dict):
    with pytest.raises(ValueError, match=r"is outside 0\.\.29: d_sae=30"):
        Intervention(sae, InterventionConfig(**{"latents": (1,), "op": "ablate", **settings}))


@pytest.mark.parametrize("case", OF_SEVERAL)
def test_dictionaries_that_write_elsewhere_are_refused(case: str):
    with pytest.raises(ValueError, match="writes elsewhere than it reads: choose a dictionary of one hook point"):
        Intervention(build(case), config("ablate", (0,)))


def test_a_redirected_edit_is_as_long_and_in_the_same_places(sae: TopK, latent: int):
    h, where = residual(), torch.randn(D_IN, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    for cfg in (config("clamp", (latent,), 3.0, when="token"), config("project_out", (latent, 2))):
        own, _ = done(sae, h, cfg)
        other = Redirected(Intervention(sae, cfg).begin(), where)(h, everywhere(h), False)
        torch.testing.assert_close((other - h).norm(dim=-1), (own - h).norm(dim=-1), atol=1e-5, rtol=1e-5)
        moved = (own != h).any(dim=-1)
        assert torch.equal((other != h).any(dim=-1), moved)
        cosine = torch.nn.functional.cosine_similarity((other - h)[moved], where.expand(int(moved.sum()), -1))
        torch.testing.assert_close(cosine, torch.ones_like(cosine), atol=1e-4, rtol=0)


def test_push_adds_a_multiple_of_each_sequence_s_own_row_and_nothing_at_strength_zero(sae: TopK):
    h, strengths = residual(), torch.tensor([2.0, 0.0, -1.5], dtype=torch.float64)
    rows = sae.W_dec[:3].detach()
    pushed = push(rows, strengths)(h, everywhere(h), False)
    torch.testing.assert_close(pushed, h + (strengths[:, None] * rows)[:, None, :])
    assert torch.equal(pushed[1], h[1])
    low = h.bfloat16()
    assert push(rows.float(), strengths.float())(low, everywhere(h), False)[1].equal(low[1])


class TestDirections:
    """A vector of one's own, added beside edits of latents."""

    VECTOR = tuple(float(i % 3) + 0.5 for i in range(D_IN))

    def of(self, length: float = 2.0, **settings: object) -> DirectionConfig:
        return DirectionConfig(vector=self.VECTOR, length=length, **settings)  # pyright: ignore[reportArgumentType]

    def unit(self) -> Tensor:
        vector = torch.tensor(self.VECTOR, dtype=torch.float64)
        return vector / vector.norm()

    @pytest.mark.parametrize("length", [2.0, -0.7])
    def test_every_position_is_moved_by_its_length_along_it(self, sae: TopK, length: float):
        h = residual()
        torch.testing.assert_close(done(sae, h, self.of(length))[0], h + length * self.unit())

    @pytest.mark.parametrize("when", WHEN)
    def test_length_0_changes_no_bit(self, sae: TopK, latent: int, when: str):
        h = residual()
        out, trace = done(sae, h, self.of(0.0, when=when, condition=(latent,)))
        assert torch.equal(out, h)
        assert trace.n_altered == 0

    def test_a_batch_is_its_sequences_one_by_one(self, sae: TopK, latent: int):
        h, cfg = residual(), self.of(when="input", condition=(latent,))
        alone = torch.cat([done(sae, each[None], cfg)[0] for each in h])
        torch.testing.assert_close(done(sae, h, cfg)[0], alone)

    def test_what_may_not_be_touched_and_sinks_come_back_bit_for_bit(self, sae: TopK):
        h, touch = residual(), everywhere(residual())
        touch[:, 0] = False
        h[1, 5] *= 100
        out, trace = done(sae, h, self.of(), touch=touch, sink_norm=50.0)
        left = ~touch
        left[1, 5] = True
        assert torch.equal(out[left], h[left])
        assert torch.equal(trace.altered[0], ~left)

    def test_it_is_added_where_its_condition_is_met_and_nowhere_else(self, sae: TopK, latent: int):
        h = residual()
        met = dense(sae, h)[..., latent] > 0
        out, trace = done(sae, h, self.of(when="token", condition=(latent,)))
        assert torch.equal(trace.altered[0], met)
        torch.testing.assert_close(out[met], (h + 2.0 * self.unit())[met])

    def test_along_a_decoder_row_it_is_adding_to_the_latent(self, sae: TopK, latent: int):
        h, row = residual(), sae.W_dec[latent].detach()
        along = DirectionConfig(vector=tuple(row.tolist()), length=float(row.norm()) * 1.5)
        torch.testing.assert_close(done(sae, h, along)[0], done(sae, h, config("add", (latent,)))[0])

    @pytest.mark.parametrize("other", ["clamp", "project_out"])
    def test_it_goes_together_with_edits_of_latents_and_before_projections(self, sae: TopK, latent: int, other: str):
        h, edit = residual(), config(other, (latent,))
        added = h + 2.0 * self.unit()
        expected = done(sae, added, edit)[0] if other == "project_out" else done(sae, h, edit)[0] + 2.0 * self.unit()
        for several in ((self.of(), edit), (edit, self.of())):
            torch.testing.assert_close(done(sae, h, *several)[0], expected)

    @pytest.mark.parametrize(
        ("settings", "said"),
        [
            ({"vector": (0.0,) * D_IN}, "has no direction"),
            ({"vector": (float("nan"),) * D_IN}, "not finite"),
            ({"length": float("inf")}, "not finite"),
            ({"when": "token"}, "has no condition"),
            ({"when": "never"}, "choose one of always"),
            ({"above": (1.0, 2.0)}, "nor one for each"),
        ],
    )
    def test_what_cannot_be_is_refused(self, settings: dict, said: str):
        with pytest.raises(ValueError, match=said):
            DirectionConfig(**{"vector": self.VECTOR, "length": 1.0, **settings})

    def test_a_vector_of_another_length_is_refused(self, sae: TopK):
        with pytest.raises(ValueError, match=r"a vector has 3 numbers, x has 10"):
            Intervention(sae, DirectionConfig(vector=(1.0, 2.0, 3.0), length=1.0))


def test_shares_of_a_sequence_are_those_of_its_changed_positions_in_their_order(sae: TopK, latent: int):
    h = residual()
    out, trace = done(sae, h, config("clamp", (latent,), 3.0, when="token"))
    for number in range(len(h)):
        expected = ((out - h).norm(dim=-1) / h.norm(dim=-1))[number]
        assert trace.shares(number) == pytest.approx(expected[trace.altered[0][number]].tolist())
