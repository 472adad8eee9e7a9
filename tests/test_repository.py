"""What the repository promises about itself: the wheel, the layers, the documents."""

import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

REPO = Path(__file__).parents[1]
PACKAGES = {"sae", "activations", "autointerp", "app", "store", "studies"}


def test_the_wheel_has_the_packages_and_no_tests(tmp_path: Path):
    code = f"from hatchling.build import build_wheel; build_wheel({str(tmp_path)!r})"
    subprocess.run([sys.executable, "-c", code], cwd=REPO, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert {name.split("/")[0] for name in names if ".dist-info" not in name} == PACKAGES
    assert "app/web/main.py" in names


def sources() -> list[Path]:
    return sorted(path for package in PACKAGES for path in (REPO / package).rglob("*.py"))


@pytest.mark.parametrize("path", sources(), ids=lambda path: path.relative_to(REPO).as_posix())
def test_no_file_makes_you_scroll(path: Path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 400


def test_nothing_unpickles():
    ways = (r"\bimport pickle\b", r"\bpickle\.", r"torch\.load\((?!.*weights_only=True)", "allow_pickle=True")
    pattern = re.compile("|".join((*ways, r"\beval\(", r"\bexec\(", r"yaml\.load\(")))
    found = [path for path in sources() if pattern.search(path.read_text(encoding="utf-8").replace(".eval()", ""))]
    assert found == []


def test_one_module_reads_the_formats_that_could_hold_code():
    found = [path.relative_to(REPO).as_posix() for path in sources() if "torch.load(" in path.read_text("utf-8")]
    assert found == ["sae/convert/files.py"]


def test_links_between_documents_lead_somewhere():
    documents = [*REPO.glob("*.md"), *(REPO / "docs").glob("*.md"), *(REPO / "docs").rglob("*.ipynb")]
    for document in documents:
        for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", document.read_text(encoding="utf-8")):
            assert (document.parent / target).exists(), f"{document.name}: {target}"
