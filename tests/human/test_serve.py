import json
import socket
from dataclasses import replace

import pytest

from evalkit.errors import DataError, DesignError
from evalkit.human import rater
from evalkit.human.rater import Rater
from evalkit.human.round import Round, open_round
from evalkit.study import Study

BOUND = {"test_set": "t", "base": "b", "fine_tuned": "f"}


@pytest.fixture
def study(tmp_path):
    (tmp_path / "data" / "s").mkdir(parents=True)
    (tmp_path / "data" / "s" / "study.yaml").write_text("study: s\n")
    return Study(name="s", root=tmp_path)


def draw(study, results, raters):
    """The study's round r1, of three pairs."""
    said = {"rating_round": "r1", "sample_size": 3, "raters": raters}
    answers = results(), results(who="tuned")
    home = replace(study, overrides=said)
    return open_round(home, *answers, bound_to=BOUND, models={}).round


def test_links_are_random_kept_and_private(new_round):
    round_ = new_round(raters=("ann", "bob"))
    codes = rater.links(round_)
    assert sorted(codes.values()) == ["ann", "bob"]
    assert all(len(code) >= 16 and code not in {"ann", "bob"} for code in codes)
    assert rater.links(round_) == codes
    assert (round_.folder / "links.json").stat().st_mode & 0o077 == 0
    text = rater.page_of_links(round_, "tok", 9000)
    assert all(f"http://127.0.0.1:9000/?token=tok&rater={code}" in text for code in codes)


def test_the_number_of_pairs_is_that_of_the_page(new_round):
    round_ = new_round(repeat_share=0.1)  # 20 pairs and 2 repeats: the page counts to 22
    text = rater.page_of_links(round_, "tok", 9000)
    assert text.startswith(f"Rating round {round_.folder.name}: 20 pairs, 2 of them shown twice.")


def test_links_that_were_sent_live_as_long_as_their_round(new_round):
    round_ = new_round(raters=("ann", "bob"))
    sent = rater.page_of_links(round_, rater.round_token(round_), 9000)
    again = Round.open(round_.folder)  # the command was started anew
    assert rater.page_of_links(again, rater.round_token(again), 9000) == sent
    token, codes = rater.round_token(again), (round_.folder / "links.json").read_text()
    assert len(token) >= 32
    assert token not in codes
    (round_.folder / "links.json").unlink()  # how somebody takes all of them back
    assert rater.round_token(again) != token


def test_broken_links_are_said_to_the_rater_not_thrown(new_round):
    round_ = new_round()
    (round_.folder / "links.json").write_text("{")
    refused = rater.page({"EVALKIT_ROUND": str(round_.folder), "QUERY_STRING": "rater=x"})
    assert "links.json: not readable" in refused._repr_html_()


@pytest.mark.parametrize(
    "query", ["", "rater=ann", "rater=", "rater=../../key.json", "rater=<script>", "token=x"]
)
def test_without_a_code_from_the_list_nobody_gets_in(new_round, query):
    round_ = new_round(raters=("ann",))
    shown = rater.page({rater.ROUND: str(round_.folder), "QUERY_STRING": query})
    assert "not complete or not valid" in shown.data
    assert "<script>" not in shown._repr_html_()


def test_a_code_opens_its_own_raters_page(new_round):
    round_ = new_round(raters=("ann", "bob"))
    code = next(code for code, rater in rater.links(round_).items() if rater == "bob")
    shown = rater.page({rater.ROUND: str(round_.folder), "QUERY_STRING": f"token=x&rater={code}"})
    assert isinstance(shown, Rater)
    assert shown._session.rater == "bob"


def test_the_server_listens_here_only_with_a_token_a_policy_and_culling():
    settings = rater._server_settings("secret", 9000)
    assert settings["Voila"]["ip"] == "127.0.0.1"
    assert settings["Voila"]["token"] == "secret"
    assert settings["VoilaConfiguration"]["file_allowlist"] == []
    assert settings["MappingKernelManager"]["cull_idle_timeout"] > 0
    policy = settings["Voila"]["tornado_settings"]["headers"]["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'")
    assert "http" not in policy


def test_the_served_notebook_holds_one_call(tmp_path):
    rater._furnish(tmp_path, "secret", 9000)
    notebook = json.loads((tmp_path / "rate.ipynb").read_text())
    assert [cell["source"] for cell in notebook["cells"]] == [
        "from evalkit.human import rater\n\nrater.page()"
    ]
    assert "secret" not in (tmp_path / "rate.ipynb").read_text()
    assert (tmp_path / "voila.json").stat().st_mode & 0o077 == 0


def test_a_study_without_a_round_says_what_to_do(study):
    (study.folder / "study.yaml").write_text("study: s\n")
    with pytest.raises(DataError, match=r"round1.*prepare the round first"):
        rater.serve("s", root=study.root)
    (study.folder / "study.yaml").write_text("rating_round: r1\n")
    with pytest.raises(DataError, match=r"r1.*prepare the round first"):
        rater.serve("s", root=study.root)


def test_a_port_in_use_is_said_before_any_link(study, results, capsys):
    draw(study, results, raters="rater1")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(DesignError, match=rf"port {port} cannot be used.*--port"):
            rater.serve("s", port, rating_round="r1", root=study.root)
    assert capsys.readouterr().out == ""


def test_closing_waits_for_all_raters_and_says_what_was_sealed(study, results, rate):
    (study.folder / "study.yaml").write_text("study: s\n")
    with pytest.raises(DataError, match=r"evalkit run s --only 03 -p rating_round=r1$"):
        rater.close("s", rating_round="r1", root=study.root)
    (study.folder / "study.yaml").write_text("rating_round: r1\n")
    round_ = draw(study, results, raters="ann,bob")
    rate(round_, "ann", lambda _: "left")
    total = len(round_.batch.orders["ann"])
    with pytest.raises(
        DesignError, match=rf"{total} of {2 * total} votes are in \(bob 0 of {total}\)"
    ):
        rater.close("s", root=study.root)
    said = rater.close("s", unfinished=True, root=study.root)
    assert f"ann: {total} votes, sha256 " in said
    assert "NOT everybody had finished" in said
    assert said.endswith("The key opens now. Next: evalkit run s")
    assert Round.open(round_.folder).key().fine_tuned_side
    assert "was closed already" in rater.close("s", root=study.root)


def test_a_closed_round_is_not_served(study, results, rate):
    round_ = draw(study, results, raters="rater1")
    rate(round_, "rater1", lambda _: "left")
    round_.lock()
    with pytest.raises(DesignError, match="closed"):
        rater.serve("s", rating_round="r1", root=study.root)
