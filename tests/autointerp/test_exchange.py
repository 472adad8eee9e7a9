"""delphi's latent cache: what goes out comes back, its loader's steps find it, and what is damaged is named."""

import json
import shutil
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from activations.tokenizer import ByteTokenizer
from autointerp.exchange.delphi_cache import open_cache
from autointerp.exchange.delphi_read import DelphiConfig, import_delphi
from autointerp.exchange.delphi_write import write_delphi
from autointerp.exchange.events import event_batches
from autointerp.exchange.export import Export, ExportConfig, choose
from autointerp.exchange.spelled import spell, vocabulary
from autointerp.explaining import ExplainConfig, explain
from autointerp.index.job import repair_index
from autointerp.sample import SampleConfig, Sampler
from autointerp.scoring import ScoreConfig, score
from store.errors import UsageError
from store.feature_index import FeatureIndex
from store.run import Run, find_run

HOOK = "blocks.1.hook_resid_post"
ONE_LINE = r"^[^\n]+\Z"


@pytest.fixture(scope="module")
def index(tiny_root: Path) -> FeatureIndex:
    return FeatureIndex(find_run(tiny_root, "latest", "index").folder)


def an_export(index: FeatureIndex, latents: str | None = None, **called: Any) -> Export:
    return Export(index, choose(index, latents), ExportConfig(**called))


@pytest.fixture(scope="module")
def cache(index: FeatureIndex, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("delphi") / "latents"
    write_delphi(out, an_export(index))
    return out


@pytest.fixture(scope="module")
def imported(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return import_delphi(DelphiConfig(), cache, tmp_path_factory.mktemp("imported") / "runs")


class TestChosen:
    def test_numbers_ranges_and_conditions_choose_latents(self, index: FeatureIndex):
        assert choose(index, "9,1, 2,5-7,6").tolist() == [1, 2, 5, 6, 7, 9]
        assert choose(index).tolist() == list(range(64))
        dense = choose(index, where="density > 0.1 -- the dense ones")
        assert dense.tolist() == sorted(index.sql("select latent from latents where density > 0.1")["latent"].tolist())

    @pytest.mark.parametrize(
        ("latents", "where", "said"),
        [
            ("64", None, "latent 64 is out of range: this index has latents 0 to 63"),
            ("3-9999999999", None, "latent 9999999999 is out of range"),
            ("5-2", None, "runs backwards: give 2-5"),
            ("a", None, "'a' is no number or range"),
            ("-1", None, "'-1' is no number or range"),
            ("", None, "is no number or range"),
            ("1", "true", "give one of them"),
            (None, "density > 2", "no latent satisfies 'density > 2'"),
            (None, "nothing > 2", "cannot be answered"),
        ],
    )
    def test_what_chooses_none_says_why(self, index: FeatureIndex, latents: str, where: str, said: str):
        with pytest.raises(UsageError, match=ONE_LINE) as caught:
            choose(index, latents, where)
        assert said in str(caught.value)


class TestDelphi:
    def test_its_loader_finds_every_event(self, index: FeatureIndex, cache: Path):
        """delphi/latents/loader.py, TensorBuffer: load a shard, add its first latent, sort stably by latent, split."""
        seen = set()
        for path in sorted((cache / HOOK).glob("*.safetensors")):
            data = load_file(path)
            assert data["locations"].dtype == np.uint16
            assert data["activations"].dtype == np.float16
            assert data["tokens"].dtype == np.int64
            locations = data["locations"].astype(np.int64)
            locations[:, 2] += int(path.name.split("_")[0])
            order = np.argsort(locations[:, 2], kind="stable")
            latents, first = np.unique(locations[order][:, 2], return_index=True)
            parts = zip(latents, np.split(order, first[1:]), strict=True)
            for latent, own in parts:
                fired = index.events(int(latent))
                assert np.array_equal(locations[own][:, 0], fired.seq)
                assert np.array_equal(locations[own][:, 1], fired.pos)
                assert np.array_equal(data["activations"][own], fired.value.astype(np.float16))
                tokens = index.tokens.token_ids[index.tokens.places(fired.seq, fired.pos)]
                assert np.array_equal(data["tokens"][tuple(locations[own][:, :2].T)], tokens)
                seen.add(int(latent))
        assert seen == set(range(64))
        config = json.loads((cache / HOOK / "config.json").read_text())
        assert {"dataset_repo", "dataset_split", "cache_ctx_len", "n_splits", "model_name"} <= set(config)
        assert config["cache_ctx_len"] % 32 == 0

    def test_what_goes_out_and_comes_back_has_the_same_events(self, index: FeatureIndex, imported: Run):
        back = FeatureIndex(imported.folder)
        for latent in range(64):
            ours, theirs = index.events(latent), back.events(latent)
            assert np.array_equal(ours.seq, theirs.seq)
            assert np.array_equal(ours.pos, theirs.pos)
            assert np.array_equal(ours.value.astype(np.float16), theirs.value)
            at, there = index.tokens.places(ours.seq, ours.pos), back.tokens.places(theirs.seq, theirs.pos)
            assert [index.tokens.texts(i, i + 1) for i in at[:50]] == [back.tokens.texts(i, i + 1) for i in there[:50]]
        for name in ("n_fired", "density", "first_seq", "dead"):
            query = f"select {name} from latents order by latent"
            assert index.sql(query)[name].tolist() == back.sql(query)[name].tolist()
        assert imported.results["n_tokens"] == index.run.results["n_tokens"]

    def test_an_imported_index_is_explained_scored_and_asked(self, imported: Run):
        explained = explain(ExplainConfig(n_latents=3), imported, imported.root)
        scored = score(ScoreConfig(), explained, imported.root)
        assert scored.results["explanation"]["n_scored"] == 3
        index = FeatureIndex(imported.folder)
        assert len(index.sql("select * from features where explanation is not null")) == 3
        assert index.sql("select count(*) as n from documents")["n"][0] == len(index.tokens.seqs)
        trial = Sampler(index, SampleConfig()).trial(explained_latent(index))
        assert trial.active
        assert trial.silent

    def test_an_imported_index_cannot_be_mended(self, imported: Run):
        with pytest.raises(UsageError, match="was imported, so nothing here can make its files again: import it anew"):
            repair_index(imported)

    def test_asking_again_makes_nothing(self, cache: Path, imported: Run):
        assert import_delphi(DelphiConfig(), cache, imported.root).reused

    def test_what_needs_the_dictionary_says_so_in_one_line(self, imported: Run):
        from app.workbench import Workbench

        bench = Workbench.open(imported.root)
        assert bench.page(3).alive
        assert bench.windows(3)
        assert len(bench.features("density > 0 limit 5")) == 5
        assert (bench.model_name, bench.hook_point, bench.evaluated) == ("", "", None)
        assert bench.dictionary == imported.id
        for asked in (lambda: bench.inspect("a text"), lambda: bench.steer("a text", 3), lambda: bench.sae_run):
            with pytest.raises(UsageError, match=r"was imported, so there is no (dictionary|model)[^\n]*$"):
                asked()

    def test_longer_sequences_are_split_and_nothing_is_lost(self, index: FeatureIndex, tmp_path: Path):
        done = write_delphi(tmp_path / "out", an_export(index, "3,60", ctx=16))
        cache = open_cache(tmp_path / "out")
        lengths = np.diff(index.tokens.offsets)
        assert cache.tokens.shape == (int((-(-lengths // 16)).sum()), 16)
        assert done["n_padding"] == cache.tokens.size - len(index.tokens)
        assert cache.counted is not None
        assert np.array_equal(cache.tokens[cache.counted >= 0], index.tokens.token_ids)
        found = [events for shard in cache.shards for events in shard.events()]
        values = np.concatenate([events.value for events in found])
        assert np.array_equal(values, np.concatenate([index.events(i).value.astype(np.float16) for i in (3, 60)]))

    def test_a_folder_that_is_there_is_left_alone(self, index: FeatureIndex, tmp_path: Path):
        (tmp_path / "mine").write_text("kept")
        with pytest.raises(UsageError, match="is there already"):
            write_delphi(tmp_path, an_export(index))
        assert [path.name for path in tmp_path.iterdir()] == ["mine"]

    def test_events_are_read_a_batch_at_a_time(self, index: FeatureIndex, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setattr("autointerp.exchange.events.BATCH_ROWS", 512)
        batches = list(event_batches(index, np.array([2, 3, 50])))
        assert max(len(batch["value"]) for batch in batches) <= 512
        assert sum(len(batch["value"]) for batch in batches) == sum(len(index.events(i).value) for i in (2, 3, 50))

    def test_memory_does_not_grow_with_the_events(
        self, index: FeatureIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ):
        one = next(event_batches(index, np.arange(64)))

        def repeated(n: int) -> int:
            # The same events over and over, as of a longer text.
            monkeypatch.setattr("autointerp.exchange.delphi_write.event_batches", lambda *_: (one for _ in range(n)))
            tracemalloc.start()
            write_delphi(tmp_path / str(n), an_export(index))
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
            return peak

        repeated(1)
        few, many = repeated(2), repeated(60)
        assert many < 1.3 * few

    def test_a_sampled_latent_is_refused_by_its_number(self, index: FeatureIndex, tmp_path: Path):
        class Sampled(FeatureIndex):
            def arrow(self, query: str, parameters: Any = None) -> Any:
                return super().arrow(query.replace("event_share < 1", "latent = 7"), parameters)

        with pytest.raises(UsageError, match=r"of 1 latents \(7\) the index keeps a sample.*--max-events"):
            write_delphi(tmp_path / "out", an_export(Sampled(index.folder)))
        assert not list(tmp_path.iterdir())

    @pytest.mark.parametrize(
        ("tensor", "change", "said"),
        [
            ("locations", lambda a: put(a, (5, 0), 60000), "locations[5] has row 60000, the file's are 0 to"),
            ("locations", lambda a: put(a, (6, 1), 64), "locations[6] has position 64"),
            ("locations", lambda a: put(a, (7, 2), 12), "locations[7] has latent 12, the file's are 0 to 11"),
            ("locations", lambda a: put(a, 8, a[7]), "latent 0 is at row"),
            ("locations", lambda a: a.astype(np.float32), "locations is F32: it must be U16 or"),
            ("locations", lambda a: a[:-1].copy(), "which should be [n, 3] and [n]"),
            ("activations", lambda a: put(a, 3, np.nan), "activations[3], of latent 0, is nan"),
            ("activations", lambda a: put(a, 3, np.inf), "is inf"),
            ("activations", lambda a: a.astype(np.int32), "activations is I32: it must be F16 or F32"),
            ("tokens", lambda a: put(a, (0, 0), 258), "has other tokens than"),
            ("tokens", None, "has no tensor 'tokens': cache the activations again with save_tokens"),
        ],
    )
    def test_a_damaged_shard_is_named(self, cache: Path, tmp_path: Path, tensor: str, change: Any, said: str):
        copy = shutil.copytree(cache, tmp_path / "latents")
        path = copy / HOOK / "0_11.safetensors"
        data = load_file(path)
        changed = {name: array for name, array in data.items() if name != tensor}
        save_file(changed | ({tensor: change(data[tensor])} if change else {}), path)
        with pytest.raises(UsageError, match=ONE_LINE) as caught:
            import_delphi(DelphiConfig(), copy, tmp_path / "runs")
        assert said in str(caught.value)
        assert "safetensors" in str(caught.value)

    @pytest.mark.parametrize(
        ("damage", "said"),
        [
            (lambda folder: (folder / "0_11.safetensors").write_bytes(b""), "is no whole safetensors file"),
            (lambda folder: cut(folder / "12_24.safetensors"), "12_24.safetensors is no whole safetensors file"),
            (lambda folder: (folder / "12_24.safetensors").unlink(), "latents 12 to 24 are missing"),
            (
                lambda folder: (folder / "0_11.safetensors").rename(folder / "0_13.safetensors"),
                "latent 12 is in the file",
            ),
            (lambda folder: (folder / "0_11.safetensors").rename(folder / "a.safetensors"), "not called FIRST_LAST"),
            (lambda folder: (folder / "config.json").write_text("{"), "is not valid JSON"),
            (lambda folder: (folder / "config.json").write_text("[1]"), "is no JSON object"),
            (lambda folder: (folder / "config.json").write_text("{}"), "names no model: give --model"),
            (lambda folder: (folder / "config.json").unlink(), "has no config.json"),
            (lambda folder: (folder / "counted.npy").write_bytes(b"x"), "counted.npy is damaged"),
            (lambda folder: np.save(folder / "counted.npy", np.zeros(3)), "delete it, and every token counts"),
        ],
    )
    def test_a_damaged_cache_is_named(self, cache: Path, tmp_path: Path, damage: Any, said: str):
        copy = shutil.copytree(cache, tmp_path / "latents")
        damage(copy / HOOK)
        with pytest.raises(UsageError, match=ONE_LINE) as caught:
            import_delphi(DelphiConfig(), copy, tmp_path / "runs")
        assert said in str(caught.value)

    def test_a_cache_of_another_vocabulary_is_refused(self, cache: Path, tmp_path: Path):
        copy = shutil.copytree(cache, tmp_path / "latents")
        for path in (copy / HOOK).glob("*.safetensors"):
            data = load_file(path)
            save_file(data | {"tokens": data["tokens"] + 5000}, path)
        with pytest.raises(UsageError, match=r"is none of tiny, which has 0 to 257: name the model .* --model"):
            import_delphi(DelphiConfig(), copy, tmp_path / "runs")

    def test_a_cache_without_our_file_counts_all_but_first_and_special_tokens(self, cache: Path, tmp_path: Path):
        copy = tmp_path / "theirs" / "layers.1"
        copy.mkdir(parents=True)
        tokens = np.array([[256, 72, 195, 169, 256, 33], [104, 105, 106, 107, 108, 109]])
        where = np.array([[0, 0, 0], [0, 2, 0], [0, 4, 1], [0, 5, 1], [1, 0, 1], [1, 5, 0]], np.uint16)
        values = np.arange(1, 7, dtype=np.float16)
        save_file({"locations": where, "activations": values, "tokens": tokens}, copy / "0_1.safetensors")
        (copy / "config.json").write_text('{"model_name": "tiny"}')
        run = import_delphi(DelphiConfig(), copy.parent, tmp_path / "runs")
        index = FeatureIndex(run.folder)
        rows = index.sql("select latent, seq, pos, value from events order by all")
        assert rows.to_numpy().tolist() == [[0, 0, 2, 2], [0, 1, 5, 6], [1, 0, 5, 4]]
        assert run.results["n_left_out"] == 3
        assert index.tokens.document(0) == "Hé!"
        assert index.sql("select n_special from latents order by latent")["n_special"].tolist() == [1, 1]


def explained_latent(index: FeatureIndex) -> int:
    return int(index.sql("select latent from explanations limit 1")["latent"][0])


def put(array: np.ndarray, at: Any, value: Any) -> np.ndarray:
    array = array.copy()
    array[at] = value
    return array


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


@given(st.lists(st.integers(0, 257), max_size=40))
def test_every_row_of_tokens_has_a_text_with_spans_inside_it(ids: list[int]):
    tokenizer = ByteTokenizer()
    spelled = spell(tokenizer, vocabulary(tokenizer), ids)
    spelled.text.encode()
    on = spelled.char_start >= 0
    assert np.array_equal(on, np.array([i < 256 for i in ids], bool))
    assert (spelled.char_start[on] <= spelled.char_end[on]).all()
    assert (spelled.char_end[on] <= len(spelled.text)).all()
    assert (np.diff(spelled.char_start[on]) >= 0).all()


@given(st.text(max_size=20))
def test_what_a_tokenizer_cut_is_put_together_again(text: str):
    tokenizer = ByteTokenizer()
    try:
        encoding = tokenizer.encode(text.encode().decode())
    except UnicodeEncodeError:
        return
    spelled = spell(tokenizer, vocabulary(tokenizer), encoding.ids)
    assert spelled.text == text
    assert spelled.char_start.tolist() == encoding.char_start
    assert spelled.char_end.tolist() == encoding.char_end
