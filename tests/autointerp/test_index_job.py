"""Making an index: what is killed goes on, what is damaged is made again alone, and who fires too often is sampled."""

import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from activations.reader import Activations
from app.cli import main
from autointerp.index.config import IndexConfig
from autointerp.index.encode import Codes
from autointerp.index.gather import ranges
from autointerp.index.job import build_index, repair_index
from autointerp.index.spill import PEAKS, Thinning, in_sample
from store.errors import UsageError
from store.feature_index import FeatureIndex
from store.index import CURRENT
from store.index_tables import PUBLISHED, SORTED_BY
from store.latents import windows
from store.run import Run, find_run, list_runs
from store.token_map import TokenMap

COMPARED = [name for name in PUBLISHED if name not in ("explanations", "scores", "plane", "heads")]


@pytest.fixture(scope="module")
def harvested(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A harvest of several windows and a dictionary, without an index."""
    root = tmp_path_factory.mktemp("job")
    commands = [
        "harvest --model tiny --hook-points blocks.1.hook_resid_post --corpus stories --n-tokens 9000 --n-ctx 64 "
        "--shard-rows 1024",
        "train topk --d-sae 64 --k 4 --n-steps 60 --batch-size 256",
    ]
    for command in commands:
        assert main([*command.split(), "--root", str(root)]) == 0
    return root


@pytest.fixture
def root(harvested: Path, tmp_path: Path) -> Path:
    shutil.copytree(harvested, tmp_path / "runs")
    return tmp_path / "runs"


def built(root: Path, cfg: IndexConfig | None = None) -> Run:
    sae = find_run(root, "latest", "sae")
    return build_index(cfg or IndexConfig(), sae, find_run(root, sae.inputs["activations"]), root)


def tables(run: Run) -> dict[str, list[dict]]:
    """Everything that is published, and the events."""
    index = FeatureIndex(run.folder)
    found = {t: index.arrow(f"SELECT * FROM {t} ORDER BY {SORTED_BY[t]}").to_pylist() for t in COMPARED}
    return {**found, "events": index.arrow("SELECT * FROM events ORDER BY latent, seq, pos").to_pylist()}


@pytest.fixture(scope="module")
def whole(harvested: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[dict]]:
    """What an index holds that nobody disturbed."""
    folder = tmp_path_factory.mktemp("whole") / "runs"
    shutil.copytree(harvested, folder)
    return tables(built(folder))


def test_there_are_several_windows(harvested: Path):
    activations = Activations(find_run(harvested, "latest", "activations"))
    assert len({block.window for block in activations.blocks}) > 2


ROUNDED = ("value", "activations", "mean")
"""Columns of activations: computed in batches of another shape, they may differ in their last bits."""


def assert_alike(found: list[dict], expected: list[dict]) -> None:
    """The same rows in the same order, `ROUNDED` columns but for their last bits."""
    assert len(found) == len(expected)
    for row, other in zip(found, expected, strict=True):
        assert row.keys() == other.keys()
        for name, value in row.items():
            assert other[name] == (pytest.approx(value, rel=1e-5) if name in ROUNDED else value), name


class TestRanges:
    @pytest.mark.parametrize("most", [1, 300, 5000])
    def test_how_many_latents_are_worked_on_at_a_time_changes_nothing(
        self, root: Path, whole: dict, monkeypatch: pytest.MonkeyPatch, most: int
    ):
        monkeypatch.setattr("autointerp.index.ranges.ranges", lambda n_held, _: ranges(n_held, most))
        monkeypatch.setattr("autointerp.index.coactivation.ENTRIES", 64 * 5)
        run = built(root)
        assert len(list((run.folder / "parts").glob("events-*.parquet"))) > 1
        again = tables(run)
        for table, rows in whole.items():
            kept = [{k: v for k, v in row.items() if k not in ("part", "first_row")} for row in rows]
            assert [{k: v for k, v in row.items() if k not in ("part", "first_row")} for row in again[table]] == kept
        index = FeatureIndex(run.folder)
        for latent in (0, 17, 63):
            own = [row for row in whole["events"] if row["latent"] == latent]
            assert index.events(latent).value.tolist() == [row["value"] for row in own]

    def test_ranges_hold_every_latent_once(self):
        found = ranges(np.array([5, 0, 5, 20, 1, 0]), most=10)
        assert [(r.start, r.stop) for r in found] == [(0, 3), (3, 4), (4, 6)]


class TestKilled:
    def test_an_index_killed_at_any_moment_is_finished_by_the_next_one(self, root: Path, whole: dict):
        command = [str(Path(sys.executable).with_name("monosem")), "index", "--root", str(root)]
        for delay in (0.0, 0.05, 0.2, 0.5):
            with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
                assert process.stderr is not None
                for line in process.stderr:
                    if "encode every token" in line:
                        break
                time.sleep(delay)
                process.send_signal(signal.SIGKILL)
        assert tables(built(root)) == whole
        (run,) = list_runs(root, "index")
        assert not (run.folder / ".spill").exists()

    def test_windows_that_were_encoded_are_not_encoded_again(self, root: Path, whole: dict, monkeypatch):
        from autointerp.index.encode import Encoder

        seen: list[int] = []
        encode = Encoder.window

        def counted(self, number, blocks, dtype):
            if len(seen) == 2:
                raise KeyboardInterrupt
            seen.append(number)
            return encode(self, number, blocks, dtype)

        monkeypatch.setattr(Encoder, "window", counted)
        with pytest.raises(KeyboardInterrupt):
            built(root)
        assert seen == [0, 1]
        seen.clear()
        monkeypatch.setattr(
            Encoder, "window", lambda self, n, blocks, dtype: seen.append(n) or encode(self, n, blocks, dtype)
        )
        run = built(root)
        assert seen[0] == 2
        assert tables(run) == whole

    def test_where_no_vector_is_stored_the_index_is_the_same(self, root: Path, whole: dict):
        own = find_run(root, "latest", "activations")
        command = (
            "harvest --model tiny --hook-points blocks.1.hook_resid_post --corpus stories --n-tokens 9000 --n-ctx 64 "
        )
        assert main([*f"{command} --shard-rows 1024 --keep-activations none --root {root}".split()]) == 0
        again = find_run(root, "latest", "activations")
        assert again.id != own.id
        run = build_index(IndexConfig(), find_run(root, "latest", "sae"), again, root)
        found = tables(run)
        for name in ("events", "contexts", "coactivations", "ngrams"):
            # A near miss is one of a block of rows, and blocks are other ones.
            rows = [[row for row in table[name] if row.get("band") != "near"] for table in (found, whole)]
            assert_alike(*rows)

    def test_the_same_request_does_nothing(self, root: Path):
        first = built(root)
        assert built(root).reused
        assert built(root).id == first.id


class TestRepair:
    @pytest.mark.parametrize(
        "name",
        [
            *("parts/contexts-00000.parquet", "parts/latents-00000.parquet", "parts/events-00000.parquet"),
            *(
                "parts/logits.parquet",
                "parts/logit_effects.parquet",
                "parts/neighbours.parquet",
                "parts/titles.parquet",
            ),
            *("codes/00001.safetensors", "text/byte_start.npy", "ranges.npy"),
        ],
    )
    @pytest.mark.parametrize("how", ["cut", "gone"])
    def test_a_damaged_file_is_named_and_made_again_alone(self, root: Path, whole: dict, capsys, name: str, how: str):
        run = built(root)
        files = dict(run.manifest["files"])
        # The files of the text are written in one go, to the same bytes.
        others = [
            n for n in run.manifest["files"] if n != name and not (n.startswith("text/") and name.startswith("text/"))
        ]
        before = {n: (run.folder / n).stat().st_mtime_ns for n in others}
        path = run.folder / name
        path.write_bytes(path.read_bytes()[:-20]) if how == "cut" else path.unlink()
        assert main(["verify", run.id, "--root", str(root)]) != 0
        assert name in "".join(capsys.readouterr())
        assert repair_index(run) == [name]
        assert {n: (run.folder / n).stat().st_mtime_ns for n in others} == before
        assert main(["verify", run.id, "--root", str(root)]) == 0
        assert find_run(root, run.id).manifest["files"] == files, "the same bytes"
        assert tables(find_run(root, run.id)) == whole

    def test_the_command_says_what_it_made(self, root: Path, capsys):
        run = built(root)
        (run.folder / "parts/neighbours.parquet").unlink()
        assert main(["index", "--repair", "latest", "--root", str(root)]) == 0
        assert "made again: parts/neighbours.parquet" in capsys.readouterr().out
        assert main(["index", "--repair", "latest", "--root", str(root)]) == 0
        assert f"index {run.id} is whole" in capsys.readouterr().out

    def test_a_part_holds_the_latents_that_its_number_says_whatever_memory_there_is(
        self, root: Path, whole: dict, monkeypatch: pytest.MonkeyPatch
    ):
        with monkeypatch.context() as patch:
            patch.setattr("autointerp.index.ranges.ranges", lambda n_held, most: ranges(n_held, 9000))
            run = built(root)
        (run.folder / "parts/latents-00001.parquet").unlink()
        assert repair_index(run) == ["parts/latents-00001.parquet"]
        rows = tables(run)["latents"]
        assert [row["n_fired"] for row in rows] == [row["n_fired"] for row in whole["latents"]]

    def test_a_damaged_publication_is_made_again(self, root: Path, whole: dict):
        run = built(root)
        path = run.folder / (run.folder / CURRENT).read_text()
        content = bytearray(path.read_bytes())
        for at in range(len(content) // 3, len(content), len(content) // 64):
            # Inverted: zeros may lie there already. Often: some blocks of the file hold nothing.
            content[at : at + 64] = bytes(byte ^ 0xFF for byte in content[at : at + 64])
        path.write_bytes(content)
        assert repair_index(run) == [CURRENT]
        assert tables(run) == whole


class TestSampled:
    """Latents that fire on too many tokens."""

    @pytest.fixture(scope="class")
    def sampled(self, harvested: Path, tmp_path_factory: pytest.TempPathFactory) -> FeatureIndex:
        folder = tmp_path_factory.mktemp("sampled") / "runs"
        shutil.copytree(harvested, folder)
        return FeatureIndex(built(folder, IndexConfig(max_events=300, n_top=2)).folder)

    def test_what_is_exact_stays_exact(self, sampled: FeatureIndex, whole: dict):
        exact = ("n_fired", "density", "mean", "mean_square", "skewness", "min", "max", "n_docs", "doc_entropy")
        rows = sampled.arrow("SELECT * FROM latents ORDER BY latent").to_pylist()
        assert any(row["event_share"] < 1 for row in rows)
        assert any(row["event_share"] == 1 for row in rows)
        for row, expected in zip(rows, whole["latents"], strict=True):
            assert {name: row[name] for name in exact} == {name: expected[name] for name in exact}
            assert row["n_normal"] == expected["n_normal"]
            if row["event_share"] == 1:
                assert row["n_events"] == row["n_fired"]
                assert row["histogram"] == expected["histogram"]
            else:
                assert row["n_events"] <= row["n_fired"]
        assert sum(row["n_events"] for row in rows) < 0.9 * sum(row["n_fired"] for row in rows)
        assert sampled.arrow("SELECT * FROM coactivations").to_pylist() == whole["coactivations"]

    def test_whole_sequences_are_kept_or_not(self, sampled: FeatureIndex, whole: dict):
        shares = dict(sampled.sql("SELECT latent, event_share FROM latents").itertuples(index=False))
        events = {latent: [r for r in whole["events"] if r["latent"] == latent] for latent in shares}
        for latent, share in shares.items():
            kept = sampled.events(latent)
            seqs = set(kept.seq.tolist())
            assert len(kept.seq) == sum(row["seq"] in seqs for row in events[latent])
            shift = round(-np.log2(share))
            sample = {row["seq"] for row in events[latent] if in_sample(np.array([row["seq"]]), shift, 0)[0]}
            assert sample <= seqs

    def test_the_strongest_contexts_are_the_same(self, sampled: FeatureIndex, whole: dict):
        top = [row for row in whole["contexts"] if row["band"] == "top"]
        for latent in range(64):
            expected = [row["value"] for row in top if row["latent"] == latent]
            found = windows(sampled, latent, "top")
            assert [window.value for window in found] == expected[:2]
            assert all(max(window.values) > 0 for window in found)

    def test_histograms_and_weights_stand_for_all_events(self, sampled: FeatureIndex, whole: dict):
        for row in sampled.arrow("SELECT * FROM latents").to_pylist():
            assert sum(row["histogram"]) == row["n_fired"]
        query = "SELECT latent, band, sum(weight) FROM contexts WHERE band[1] IN ('q', 'v') GROUP BY ALL"
        weights = {(latent, band): weight for latent, band, weight in sampled.sql(query).itertuples(index=False)}
        expected = [row for row in whole["contexts"] if row["band"][0] in "qv"]
        total = sum(row["weight"] for row in expected)
        assert sum(weights.values()) == pytest.approx(total, rel=0.1)

    def test_silent_contexts_are_silent_though_their_events_are_not_all_kept(self, sampled: FeatureIndex, whole: dict):
        fired = {(row["latent"], row["seq"], row["pos"]) for row in whole["events"]}
        rows = sampled.arrow("SELECT latent, seq, pos FROM contexts WHERE band IN ('near', 'silent')").to_pylist()
        assert rows
        assert not any((row["latent"], row["seq"], row["pos"]) in fired for row in rows)

    def test_value_bands_divide_up_to_the_largest_value_of_all(self, sampled: FeatureIndex):
        query = "SELECT c.value, c.band, l.max FROM contexts c JOIN latents l USING (latent) WHERE c.band[1] = 'v'"
        for value, band, largest in sampled.sql(query).itertuples(index=False):
            assert (int(band[1]) - 1) / 4 * largest < value * (1 + 1e-6)
            assert value <= int(band[1]) / 4 * largest * (1 + 1e-5)

    def test_windows_of_silent_contexts_show_every_token_that_fires(self, sampled: FeatureIndex, whole: dict):
        fired = {(row["latent"], row["seq"], row["pos"]) for row in whole["events"]}
        for latent in range(64):
            for window in windows(sampled, latent):
                for i, value in enumerate(window.values):
                    assert (value != 0) == ((latent, window.seq, window.start + i) in fired)

    def test_a_burst_is_no_reason_to_thin(self):
        """It fires less than is allowed, all in one window of many."""
        codes = codes_of(np.ones((900, 1), bool))
        tokens = object.__new__(TokenMap)
        thinning = Thinning(max_events=1000, n_top=2, seed=0, n_tokens=90_000)
        kept = thinning.kept(codes, tokens, 0, 1, np.array([50]))
        assert kept.shift.tolist() == [0]
        assert (len(kept.place), kept.seen.tolist()) == (900, [950])

    def test_a_sequence_full_of_strong_events_is_one_peak(self):
        """The strongest peaks stay, though one sequence has more strong events than there are places for peaks."""
        n_seq, n_ctx = 100, 20
        level = np.linspace(1, 2, n_seq)[np.random.default_rng(0).permutation(n_seq)].astype(np.float32)
        tokens = object.__new__(TokenMap)
        tokens.positions = lambda places: (places // n_ctx, places % n_ctx)  # type: ignore[method-assign]
        tokens.pieces = lambda places: places // n_ctx  # type: ignore[method-assign]
        place = np.arange(n_seq * n_ctx)
        kept = Thinning(max_events=1, n_top=3, seed=0, n_tokens=1).sampled(tokens, place, level[place // n_ctx], 30)
        assert set(place[kept] // n_ctx) == set(np.argsort(-level)[: 3 * PEAKS])

    def test_samples_are_nested_and_of_their_share(self):
        seq = np.arange(100_000)
        inner, outer = in_sample(seq, 3, 7), in_sample(seq, 2, 7)
        assert not (inner & ~outer).any()
        assert inner.mean() == pytest.approx(1 / 8, abs=0.005)
        assert not np.array_equal(inner, in_sample(seq, 3, 8))
        assert in_sample(seq, 0, 7).all()

    def test_a_window_keeps_its_part_of_what_is_allowed(self):
        n, d_sae = 4000, 3
        on = np.zeros((n, d_sae), bool)
        on[:, 0], on[::40, 1] = True, True
        codes = codes_of(on)
        latent, value = codes.latents, codes.values

        tokens = object.__new__(TokenMap)
        tokens.positions = lambda places: (places // 20, places % 20)  # type: ignore[method-assign]
        tokens.pieces = lambda places: places // 20  # type: ignore[method-assign]
        kept = Thinning(max_events=1000, n_top=1, seed=0, n_tokens=8000).kept(codes, tokens, 0, d_sae)
        assert kept.shift.tolist() == [3, 0, 0]
        assert kept.n_fired.tolist() == [4000, 100, 0]
        n_sampled = in_sample(np.arange(200), 3, 0).sum()
        assert n_sampled < 50
        assert 20 * n_sampled <= np.diff(kept.offsets)[0] <= 20 * (n_sampled + PEAKS)
        assert np.allclose(kept.sums[0], [value[latent == i].astype(np.float64).sum() for i in range(3)])


def codes_of(on: np.ndarray) -> Codes:
    """Codes of a `[n_tokens, d_sae]` pattern, with values drawn."""
    token, latent = np.nonzero(on)
    offsets = np.concatenate([[0], np.cumsum(on.sum(1))])
    value = np.random.default_rng(0).exponential(size=len(token)).astype(np.float32)
    return Codes(offsets, latent.astype(np.int32), value, np.ones(len(on), bool), np.zeros((4, on.shape[1]), np.int64))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"classes": ("loud",)}, "choose of normal, special, role, sink"),
        ({"n_top": 0}, "n_top=0 keeps nothing: choose n_top >= 1"),
        ({"n_near": -1}, "n_near=-1 is negative"),
        ({"max_events": 0}, "max_events=0 keeps nothing"),
    ],
)
def test_settings_that_make_no_sense_are_refused(change: dict, message: str):
    with pytest.raises(ValueError, match=message):
        IndexConfig(**change)


def test_a_dictionary_on_which_nothing_fires_is_refused(root: Path):
    from sae import checkpoint

    run = find_run(root, "latest", "sae")
    sae = checkpoint.load(run.folder)
    with torch.no_grad():
        sae.b_enc.fill_(-1e9)
    checkpoint.save(run.folder, sae)
    with pytest.raises(UsageError, match="no latent fires on any token"):
        built(root)
