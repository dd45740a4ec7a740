from datetime import UTC, datetime

import pytest

from evalkit import workbench
from evalkit.errors import DataError, DesignError
from evalkit.evidence import Evidence
from evalkit.records import Missing
from evalkit.study import Study, checked_run, new_run_name, project_root


@pytest.fixture
def root(tmp_path):
    for name in ("data/demo", "notebooks/deep", "reports"):
        (tmp_path / name).mkdir(parents=True)
    return tmp_path


def test_a_study_is_found_from_the_root_or_from_a_folder_inside(root):
    assert project_root(root) == project_root(root / "notebooks" / "deep") == root.resolve()


def test_outside_a_project_the_message_says_what_is_looked_for(tmp_path):
    with pytest.raises(DataError, match="holds data/ and notebooks/"):
        project_root(tmp_path)


@pytest.mark.parametrize(
    "name", ["../../etc", "/etc/passwd", "..", "study\n", ".hidden", "a" * 300, "UPPER", "", "a\0b"]
)
def test_a_name_that_could_leave_the_folder_is_refused(root, name):
    with pytest.raises(DesignError, match="lower-case"):
        Study.open(name, root=root)


def test_an_unknown_study_lists_the_known_ones(root):
    with pytest.raises(DataError, match="data/ holds demo"):
        Study.open("other", root=root)


def test_a_path_stays_inside_the_study(root):
    study = Study.open("demo", root=root)
    assert study.path("journals/base.jsonl").parent == (root / "data/demo/journals").resolve()
    with pytest.raises(DataError, match="leaves"):
        study.path("../other/test.jsonl")


def test_run_names_sort_by_time_and_are_accepted_back(root):
    name = new_run_name(datetime(2026, 11, 24, 12, 0, tzinfo=UTC))
    assert name.startswith("20261124T120000Z-")
    assert checked_run(name) == name
    assert Study.open("demo", root=root).run_folder(name).is_dir()
    with pytest.raises(DesignError, match="expected a name"):
        checked_run("../x")


def test_evidence_survives_the_round_trip(tmp_path):
    evidence = Evidence.of(
        {
            "layer": "human",
            "study": "demo",
            "made_at": "2026-11-24T00:00:00Z",
            "models": {"base": "a", "fine_tuned": "b"},
            "bound_to": {"test_set": "1"},
            "simulated": True,
            "metric": "preference",
            "unit": "items",
            "primary": None,
            "missing": (Missing(kind="more_ratings", n=60, needed=90),),
            "details": {"votes": 60, "p": 1e-49},
        }
    )
    assert Evidence.read(evidence.write(tmp_path / "preference.json")) == evidence


def test_broken_evidence_names_the_file_and_the_remedy(tmp_path):
    (tmp_path / "x.json").write_text('{"layer": "human"}')
    with pytest.raises(
        DataError, match=r"x\.json: not a record of evidence .* run its chapter again"
    ):
        Evidence.read(tmp_path / "x.json")


def test_a_training_or_price_file_that_is_named_must_be_there(tmp_path):
    folder = tmp_path / "data/mine"
    folder.mkdir(parents=True)
    (folder / "study.yaml").write_text("train_file: tain.jsonl\nprices_file: price.yaml\n")
    asked = '{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}'
    (folder / "test.jsonl").write_text(f'{{"messages": [{asked}]}}\n')
    here = workbench.Study(name="mine", root=tmp_path)
    with pytest.raises(DataError, match=r"tain\.jsonl: cannot read this file"):
        here.checkup()
    with pytest.raises(DataError, match=r"price\.yaml: cannot be read"):
        here.benchmark.cost("m", [])
