"""Damage and full disks: what is broken is named and made again alone, and what is finished stays."""

import dataclasses
import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from harvests import CFG, HOOKS, files_of

from activations import prepare as prepare_module
from activations.harvest import harvest
from activations.reader import Activations
from activations.repair import repair
from activations.text import TextConfig
from activations.tiny import TinyLM
from store import layout
from store import shards as stored
from store.errors import DiskFull, UsageError
from store.files import FileEntry
from store.run import Run, find_run, locked


class OtherWriter:
    """Parquet as another version of the library would write it."""

    @staticmethod
    def write_table(table, path, **options) -> None:
        pq.write_table(table, path, compression="snappy")

    read_table = staticmethod(pq.read_table)


class TestDamage:
    SHARD = f"{HOOKS[0]}/shard-00001-000.parquet"

    @pytest.mark.parametrize(
        "broken",
        [
            [SHARD],
            [SHARD, f"{HOOKS[1]}/shard-00000-001.parquet"],
            ["windows/00000.json"],
            ["windows/00002.parquet", "statistics.parquet"],
            ["statistics.parquet"],
            ["tokens/part-00001.parquet", "text.json"],
            ["documents/part-00000.parquet", SHARD],
        ],
    )
    @pytest.mark.parametrize("how", ["gone", "truncated", "flipped"])
    def test_what_is_broken_is_named_and_made_again_alone(self, copy: Run, run: Run, broken: list[str], how: str):
        for name in broken:
            data = bytearray((copy.folder / name).read_bytes())
            data[len(data) // 2] ^= 1
            if how == "gone":
                (copy.folder / name).unlink()
            else:
                (copy.folder / name).write_bytes(data if how == "flipped" else data[: len(data) // 2])
        others = {name: (copy.folder / name).stat().st_mtime_ns for name in files_of(copy.folder) if "shard-" in name}
        assert copy.broken_files() == sorted(broken)
        assert repair(copy) == sorted(broken)
        assert files_of(copy.folder) == files_of(run.folder)
        assert find_run(copy.root, copy.id).broken_files() == []
        windows = {name for name in broken if name.startswith("windows/")}
        for name, when in others.items():
            if name not in broken and not windows:
                assert (copy.folder / name).stat().st_mtime_ns == when, f"{name} was written again"

    def test_a_harvest_that_stored_no_vector_gets_its_statistics_back(self, run: Run):
        light = harvest(dataclasses.replace(CFG, keep_activations="none"), run.root.parent / "light")
        before = files_of(light.folder)
        for name in ("statistics.parquet", "tokens/part-00001.parquet"):
            (light.folder / name).write_bytes(b"PAR1 no more")
        assert repair(light) == ["statistics.parquet", "tokens/part-00001.parquet"]
        assert files_of(light.folder) == before
        assert Activations(light, HOOKS[0]).moments().n > 0

    @pytest.mark.parametrize("change", [{"hidden_act": "relu"}, {"rms_norm_eps": 0.5}])
    def test_a_model_that_is_another_is_never_mended_with(
        self, tmp_path: Path, save_model: Callable[..., Path], change: dict
    ):
        folder = save_model("llama", tmp_path / "model")
        cfg = dataclasses.replace(CFG, model=str(folder), hook_points=("blocks.1.hook_resid_post",), n_ctx=48)
        made = harvest(cfg, tmp_path)
        (shard, *_) = layout.shards(made.folder, "blocks.1.hook_resid_post")
        shard.unlink()
        settings = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(settings | change))
        with pytest.raises(UsageError, match=r"has other config than when harvest .* bring that model back"):
            repair(made)
        assert not shard.exists()

    def test_vectors_that_differ_by_more_than_rounding_are_refused(self, copy: Run, monkeypatch: pytest.MonkeyPatch):
        (copy.folder / self.SHARD).unlink()
        original = TinyLM.capture
        monkeypatch.setattr(TinyLM, "capture", lambda *a: {k: 1.1 * v for k, v in original(*a).items()})
        before = files_of(copy.folder)
        with pytest.raises(UsageError, match=r"computes other vectors than .*nothing of window 1 was changed"):
            repair(copy)
        assert files_of(copy.folder) == before

    def test_vectors_that_only_round_otherwise_are_taken_and_all_that_was_said_of_them_is_renewed(
        self, copy: Run, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ):
        (copy.folder / self.SHARD).unlink()
        original = TinyLM.capture
        monkeypatch.setattr(TinyLM, "capture", lambda *a: {k: 1.002 * v for k, v in original(*a).items()})
        assert repair(copy) == [self.SHARD]
        assert "other last bits" in caplog.text
        again = find_run(copy.root, copy.id)
        assert again.broken_files() == []
        receipt = json.loads(layout.receipt(copy.folder, 1).read_text())
        assert receipt["files"] == {name: again.manifest["files"][name] for name in receipt["files"]}

    def test_a_text_that_comes_out_otherwise_changes_nothing(self, copy: Run, monkeypatch: pytest.MonkeyPatch):
        (copy.folder / "documents/part-00000.parquet").unlink()
        before = files_of(copy.folder)
        monkeypatch.setattr(prepare_module, "pq", OtherWriter)
        with pytest.raises(UsageError, match=r"other versions of the libraries: nothing was changed"):
            repair(copy)
        assert files_of(copy.folder) == before

    @pytest.mark.parametrize(
        "name",
        [
            "tokens/part-00000.parquet",
            "text.json",
            "windows/00001.parquet",
            "windows/00001.json",
            SHARD,
            "documents/part-00000.parquet",
        ],
    )
    def test_an_unfinished_harvest_mends_itself_as_it_goes_on(self, copy: Run, run: Run, name: str):
        (copy.folder / "manifest.json").unlink()
        layout.receipt(copy.folder, 4).unlink()
        (copy.folder / name).write_bytes((copy.folder / name).read_bytes()[:40])
        assert harvest(CFG, copy.root).finished
        assert files_of(copy.folder) == files_of(run.folder)

    def test_a_whole_harvest_needs_no_mending(self, copy: Run):
        assert repair(copy) == []

    def test_a_harvest_whose_text_is_gone_says_what_it_needs(self, tmp_path: Path):
        text = tmp_path / "t.jsonl"
        text.write_text("".join(f'{{"text": "document number {i}"}}\n' for i in range(9)))
        made = harvest(dataclasses.replace(CFG, text=TextConfig(corpus=str(text))), tmp_path)
        text.write_text("".join(f'{{"text": "another number {i}"}}\n' for i in range(9)))
        (made.folder / "tokens/part-00000.parquet").unlink()
        with pytest.raises(UsageError, match="not what it was: bring the old text back"):
            repair(made)

    def test_two_cannot_mend_at_once(self, copy: Run):
        with locked(copy.folder), pytest.raises(UsageError, match="another process"):
            repair(copy)

    def test_a_shard_of_an_unfinished_harvest_that_broke_is_made_again(self, copy: Run, run: Run):
        (copy.folder / "manifest.json").unlink()
        (copy.folder / self.SHARD).write_bytes(b"half")
        assert harvest(CFG, copy.root).finished
        assert files_of(copy.folder) == files_of(run.folder)

    def test_reading_a_truncated_shard_says_what_to_do(self, copy: Run):
        (copy.folder / self.SHARD).write_bytes((copy.folder / self.SHARD).read_bytes()[:1000])
        with pytest.raises(UsageError, match="--repair"):
            list(Activations(copy, HOOKS[0]).rows().in_order())


class TestDisk:
    def test_too_little_room_is_said_before_anything_runs(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        usage = shutil.disk_usage(tmp_path)
        monkeypatch.setattr("activations.keep.shutil.disk_usage", lambda path: usage._replace(free=1000))
        with pytest.raises(
            UsageError, match=r"needs about [\d,]+ bytes more, .* has 1,000 free.*--keep-activations none"
        ):
            harvest(CFG, tmp_path)
        assert not list(tmp_path.rglob("shard-*"))

    def test_a_disk_that_fills_up_keeps_what_is_finished_and_goes_on(
        self, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ):
        original, written = stored.write_shard, []

        def until_full(path: Path, *rest) -> FileEntry:
            if len(written) == 6:
                raise DiskFull(f"no space left on the disk of {path}")
            written.append(path)
            return original(path, *rest)

        with monkeypatch.context() as patched:
            patched.setattr(stored, "write_shard", until_full)
            with pytest.raises(UsageError, match=r"What is left to harvest needs about \d"):
                harvest(CFG, tmp_path)
        (folder,) = (tmp_path / "activations").glob("[0-9a-f]*")
        assert layout.receipt(folder, 0).exists()
        kept = {path: path.stat().st_mtime_ns for path in written[:4]}
        assert harvest(CFG, tmp_path).finished
        assert files_of(folder) == files_of(run.folder)
        assert all(path.stat().st_mtime_ns == when for path, when in kept.items())

    @pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk needs root")
    def test_a_real_full_disk(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        small = tmp_path / "small"
        small.mkdir()
        mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=600k", "none", small], check=False)
        if mounted.returncode:
            pytest.skip("this machine lets nobody mount")
        try:
            with pytest.raises(UsageError, match=r"needs about [\d,]+ bytes more"):
                harvest(CFG, small)
            # Somebody else takes the room while it runs.
            usage = shutil.disk_usage(small)
            monkeypatch.setattr("activations.keep.shutil.disk_usage", lambda path: usage._replace(free=10**9))
            with pytest.raises(UsageError, match=r"no space left .*What is left to harvest needs about [\d,]+ bytes"):
                harvest(CFG, small)
            (folder,) = (small / "activations").glob("[0-9a-f]*")
            for path in folder.rglob("shard-*"):
                stored.Shard(path)
        finally:
            subprocess.run(["umount", small], check=True)
