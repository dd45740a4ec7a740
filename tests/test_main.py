import os
import shutil
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
import yaml

from evalkit.__main__ import main
from evalkit.study import Settings, new_run_name

ROW = '{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}\n'


@pytest.fixture
def project(tmp_path, monkeypatch):
    (tmp_path / "data").mkdir()
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "held_out.jsonl").write_text(ROW)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_help_reads_like_a_page_and_is_quick():
    code = "import sys, evalkit.__main__ as m\ntry: m.main(['--help'])\nfinally: print(len(sys.modules))"
    told = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    ).stdout
    for word in ("run", "gate", "rate", "doctor", "export", "new", "exit codes", "data/<study>/"):
        assert word in told
    assert int(told.split()[-1]) < 300  # nothing heavy is imported


def test_commands_stand_in_the_order_of_a_studys_life(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    told = capsys.readouterr().out
    life = (
        "new",
        "convert",
        "doctor",
        "run",
        "rate",
        "batch",
        "freeze",
        "gate",
        "confirm",
        "verify",
        "compare",
        "import",
        "export",
    )
    places = [told.index(f"\n    {word} ") for word in life]
    assert places == sorted(places)


def test_doctor_takes_what_the_study_beside_the_file_declares(project, capsys):
    row = ROW.replace('"a"', '"%s"').replace("]}", '], "metadata": {"kind": "%s", "who": "c1"}}')
    words = "the parcel that was ordered in spring has not come and nobody answers the telephone"
    Path("held_out.jsonl").write_text(
        row % (f"{words} at all", "new") + row % (f"{words} at last", "old")
    )
    main(["new", "mine", "--test", "held_out.jsonl", "--base", "a", "--fine-tuned", "b"])
    said = Path("data/mine/study.yaml")
    capsys.readouterr()
    assert main(["doctor", "data/mine/test.jsonl"]) == 0
    told = capsys.readouterr().out
    assert ("No slice is declared" in told, "near-duplicate" in told) == (True, True)
    text = said.read_text().replace('\nslice_fields: ""', "\nslice_fields: kind")
    said.write_text(text.replace('\ncluster_field: ""', "\ncluster_field: who"))
    assert main(["doctor", "data/mine/test.jsonl"]) == 0
    told = capsys.readouterr().out
    assert "2 rows from 1 source" in told
    assert ("No slice is declared" in told, "near-duplicate" in told) == (False, False)
    assert main(["doctor", "held_out.jsonl"]) == 0  # no study's file: nothing is declared of it
    assert "No slice is declared" in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [["--help"], ["doctor", "held_out.jsonl"], ["gate", "x"]])
def test_who_stops_reading_gets_no_traceback(project, arguments):
    stderr = subprocess.STDOUT if "gate" in arguments else subprocess.PIPE
    line = [sys.executable, "-m", "evalkit", *arguments]
    with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=stderr) as command:
        assert command.stdout is not None
        command.stdout.close()  # before a word is written
        told = command.stderr.read() if command.stderr else b""
    assert told == b""
    assert command.returncode in {0, 141}  # argparse ends its own help with 0


@pytest.mark.parametrize(
    "arguments",
    [
        *([], ["fly"], ["run"], ["run", "x", "-p", "alpha"], ["run", "x", "--workers", "0"]),
        ["run", "x", "-p", "alpha=0.1", "-p", "alpha=0.05"],
    ],
)
def test_a_wrong_command_exits_with_2(arguments, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    assert "usage: evalkit" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "told"),
    [([], "required: COMMAND"), (["fly"], "argument COMMAND: invalid choice")],
)
def test_a_missing_or_unknown_command_is_called_a_command(arguments, told, capsys):
    with pytest.raises(SystemExit):
        main(arguments)
    assert told in capsys.readouterr().err


@pytest.mark.parametrize(
    ("path", "shown"), [("/nowhere", "bin dir/evalkit' run mine"), ("bin dir", "evalkit run mine")]
)
def test_commands_are_told_as_the_user_must_type_them(project, path, shown):
    (project / "bin dir").mkdir()
    command = project / "bin dir" / "evalkit"
    command.write_text(f"#!/bin/sh\nexec {sys.executable} -c 'import sys; sys.argv[0] = sys.argv.pop(1); "
                       f"from evalkit.__main__ import main; main()' \"$0\" \"$@\"\n")  # fmt: skip
    command.chmod(0o755)
    arguments = ["new", "mine", "--test", "held_out.jsonl", "--base", "a", "--fine-tuned", "b"]
    told = subprocess.run(
        [command, *arguments], capture_output=True, text=True, check=True, env={"PATH": path}
    ).stdout
    assert shown in told
    assert ("'" in told.split("run mine")[0].splitlines()[-1]) is (path == "/nowhere")


def test_an_error_is_one_plain_line(project, capsys):
    assert main(["gate", "nothing"]) == 1
    told = capsys.readouterr().err
    assert told.startswith("evalkit: ")
    assert "no such study" in told
    assert "Traceback" not in told


def test_new_writes_a_study_that_its_own_reader_takes(project, capsys):
    arguments = [
        "new",
        "mine",
        "--test",
        "held_out.jsonl",
        "--base",
        "gpt: 4 # mini",
        "--fine-tuned",
        "ft:gpt'4\"x",
    ]
    assert main(arguments) == 0
    values = yaml.safe_load((project / "data/mine/study.yaml").read_text())
    assert (values["study"], values["base_model"], values["fine_tuned_model"]) == (
        "mine",
        "gpt: 4 # mini",
        "ft:gpt'4\"x",
    )
    assert values["experiment_name"] == ""  # placeholder numbers are never locked
    assert all(isinstance(value, str | int | float | bool) for value in values.values())
    assert (project / "data/mine/test.jsonl").read_text() == ROW
    told = capsys.readouterr().out
    assert (
        told.index("evalkit run mine --only 01 02 07")
        < told.index("evalkit run mine --only 03")
        < told.index("evalkit rate mine")
    )
    assert main(arguments) == 1  # nothing is overwritten
    assert "exists already" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["../x", "Mine", ".x", "a" * 65])
def test_a_study_name_never_leaves_the_folder(project, name, capsys):
    assert main(["new", name, "--test", "held_out.jsonl", "--base", "a", "--fine-tuned", "b"]) == 1
    assert os.listdir(project / "data") == []


def test_new_refuses_a_test_file_that_cannot_be_read(project, capsys):
    Path("held_out.jsonl").write_text("{broken\n")
    assert (
        main(["new", "mine", "--test", "held_out.jsonl", "--base", "a", "--fine-tuned", "b"]) == 1
    )
    told = capsys.readouterr().err
    assert "held_out.jsonl:1: not JSON" in told
    assert "(1 problem; `evalkit doctor held_out.jsonl` lists them)" in told
    assert "strict=False" not in told  # a command line has no such option
    assert not (project / "data/mine").exists()


def test_new_writes_every_setting_with_its_default_and_the_docs_explain_each():
    root = Path(__file__).parents[1]
    text = (root / "evalkit/report/template/study.yaml.j2").read_text()
    values = yaml.safe_load(text.replace("{{", '"').replace("}}", '"'))
    defaults = msgspec.structs.asdict(Settings())
    own = {"study", "title", "base_model", "fine_tuned_model", "control_model", "treatment_model"}
    chosen = {"live": True}  # what a new study should not start without
    written = {name: value for name, value in values.items() if name not in own}
    assert written == {name: chosen.get(name, defaults[name]) for name in written}
    left_out = {"rater", "system_prompt", "alpha", "power", "repeat_share"}
    assert {name for name in defaults.keys() - values.keys() if "seed" not in name} == left_out
    documented = (root / "docs/data-formats.md").read_text()
    assert [name for name in defaults if f"`{name}`" not in documented] == []


def test_rate_says_which_command_prepares_the_round(project, capsys):
    main(["new", "mine", "--test", "held_out.jsonl", "--base", "a", "--fine-tuned", "b"])
    for arguments in (["rate", "mine"], ["rate", "mine", "--lock"]):
        assert main(arguments) == 1
        assert capsys.readouterr().err.endswith(
            "prepare the round first: evalkit run mine --only 03 -p rating_round=round1\n"
        )
    assert main(["rate", "mine", "--unfinished"]) == 1
    assert "goes with --lock" in capsys.readouterr().err


def test_export_says_when_there_is_nothing(project, capsys):
    main(["new", "mine", "--test", "held_out.jsonl", "--base", "a", "--fine-tuned", "b"])
    assert main(["export", "mine", "--to", "out"]) == 1
    told = capsys.readouterr().err
    assert "neither an A/B log nor a closed rating round" in told
    assert "evalkit rate mine --lock" in told
    assert not (project / "out").exists()


def test_a_model_without_a_name_is_refused(project, capsys):
    assert (
        main(["new", "mine", "--test", "held_out.jsonl", "--base", " ", "--fine-tuned", "b"]) == 1
    )
    assert "--base is empty; name the model" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments", [["run"], ["rate"], ["rate", "--lock"], ["export", "--to", "out"]]
)
def test_a_broken_study_file_is_one_line_that_says_where(project, arguments, capsys):
    (project / "data/mine").mkdir()
    (project / "data/mine/study.yaml").write_text("study: mine\nlimit: [\n")
    shutil.copy(Path(__file__).parent / "report/notebooks/01_fine.ipynb", project / "notebooks")
    assert main([arguments[0], "mine", *arguments[1:]]) == 1
    told = capsys.readouterr().err
    assert "study.yaml: not YAML" in told
    assert "line 3" in told
    assert told.count("\n") == 1


def test_several_notebooks_are_separated_by_spaces(project, capsys):
    (project / "data/mine").mkdir()
    shutil.copy(Path(__file__).parent / "report/notebooks/01_fine.ipynb", project / "notebooks")
    assert main(["run", "mine", "--only", "01,02"]) == 1
    assert "'01,02' (several are separated by spaces); there are 01_fine" in capsys.readouterr().err


def test_a_place_that_cannot_be_written_is_one_line_that_says_what_to_do(project, capsys):
    (project / "data/mine").mkdir()
    (project / "data/mine/study.yaml").write_text("study: mine\n")
    shutil.copy(Path(__file__).parent / "report/notebooks/01_fine.ipynb", project / "notebooks")
    (project / "reports").write_text("a file")
    assert main(["run", "mine"]) == 1
    told = capsys.readouterr().err
    assert str(project / "reports/mine") in told
    assert told.endswith("a folder is needed where a file stands; move the file away\n")


def test_a_run_brought_alone_to_a_folder_near_the_root_is_judged(capsys):
    run = Path("/tmp") / new_run_name()
    run.mkdir()
    code = main(["gate", str(run)])
    run.rmdir()
    assert code == 12
    assert "Broken run" in capsys.readouterr().out


def test_the_gate_says_on_stderr_which_run_it_judged(project, capsys):
    folder = project / "reports/mine/20261124T000000Z-0a0a0a0a"
    folder.mkdir(parents=True)
    (project / "data/mine").mkdir()
    (folder / "manifest.json").write_text('{"failed": {"01_fine": "e"}}')
    assert main(["gate", "mine"]) == 12
    told = capsys.readouterr()
    assert told.out == "Broken run: 01_fine failed; no verdict is given.\n"
    assert told.err == f"evalkit: judged {folder}\n"
    assert main(["gate", str(folder)]) == 12
    assert capsys.readouterr().err == ""
