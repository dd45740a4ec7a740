"""The demo's data can be made again, to the byte, from the published list."""

import subprocess
import sys

import pytest


@pytest.mark.slow
def test_the_data_script_makes_the_committed_files_again(data, tmp_path):
    # needs data/icd10/recipe/data-requirements.txt: a package that carries the tabular list of April 2026
    script = data / "icd10" / "recipe" / "build_data.py"
    subprocess.run(
        [sys.executable, str(script), "--out", str(tmp_path)],
        check=True,
        timeout=200,
        capture_output=True,
    )
    for split in ("train", "val", "test"):
        assert (tmp_path / f"{split}.jsonl").read_bytes() == (
            data / "icd10" / f"{split}.jsonl"
        ).read_bytes()


def test_the_second_study_is_made_again_by_its_script(data, tmp_path):
    subprocess.run(
        [sys.executable, str(data / "notes" / "build_data.py"), "--out", str(tmp_path)],
        check=True,
        timeout=60,
    )
    assert (tmp_path / "test.jsonl").read_bytes() == (data / "notes" / "test.jsonl").read_bytes()
