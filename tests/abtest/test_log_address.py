import pytest

from evalkit.abtest.log import EventLog
from evalkit.abtest.source import log_url, open_log, place_of, read_url, shown
from evalkit.errors import DataError, DesignError, EvalkitError
from evalkit.report.export import export
from evalkit.study import Study
from evalkit.wording import known_secrets, passwords_in, without_secrets

PASSWORDS = [
    "s3same/open#1",
    "p@ss@word@1",
    "a?b=c&d@e12",
    "100%sure:yes",
    "[x]y{z}1234",
    "p@s?s#w/1",
    "pw",
]


@pytest.fixture
def study(tmp_path):
    for folder in ("data/s", "notebooks"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "data/s/study.yaml").write_text("study: s\n")
    return Study(name="s", root=tmp_path)


@pytest.mark.parametrize("password", PASSWORDS)
def test_a_password_is_read_whole_and_shown_in_no_part(password):
    for end in ("db.example:5432/log", "db.example/log", "db.example:5432/log?sslmode=require"):
        url = f"postgresql://ann:{password}@{end}"
        read = read_url(url)
        assert (read.password, read.host, read.database) == (password, "db.example", "log")
        for told in (shown(url), shown(log_url(url)), str(read)):
            assert not any(part in told for part in (password, password[:3], password[-3:]))
        if len(password) >= 8:
            assert password not in without_secrets(f"x {password}", known_secrets(url))


@pytest.mark.parametrize(
    "url", ["postgresql://ann:secret-1@db:x/log", "postgresql://ann:s3:cret@[::1/log", "://x:secret-1@"]
)  # fmt: skip
def test_a_url_that_cannot_be_read_is_not_quoted(url, monkeypatch):
    monkeypatch.setenv("LOG_URL", url)
    for door in (EventLog, open_log):
        with pytest.raises(EvalkitError) as caught:
            door("LOG_URL")
        assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://ann:hush@db/log",
        "postgresql://db/log?password=hush",
        "postgresql://db/log?user=ann&PASSWORD=hush",
        "postgresql://ann:hu/sh@db/log",
        "postgresql://:hush@db/log",
    ],
)
def test_a_study_file_holds_no_password_wherever_it_stands_in_the_url(study, url):
    assert passwords_in(url)
    with pytest.raises(DesignError, match="holds a password") as caught:
        place_of(study, url)
    assert "hush" not in str(caught.value)
    (study.folder / "study.yaml").write_text(f"study: s\nevent_log: '{url}'\n")
    with pytest.raises(EvalkitError, match=r"event_log: .*looks like a secret") as caught:
        Study.open("s", root=study.root).settings  # noqa: B018
    assert "hush" not in str(caught.value)


@pytest.mark.parametrize(
    "named",
    [
        *("../other.sqlite", "/etc/passwd", "duckdb:////etc/x.db", "duckdb:///../x.db"),
        *("sqlite:////tmp/x.sqlite", "sqlite:///../x.sqlite", "link/x.sqlite", "a\0b"),
        *("csv:///etc/passwd", "parquet://x", "mysql://db/x", "file:///etc/passwd", "sqlite://"),
    ],
)
def test_a_study_names_no_log_outside_its_folder(study, named, tmp_path):
    (study.folder / "link").symlink_to(tmp_path)
    with pytest.raises(EvalkitError, match=r"leaves .*s; name|need a file or folder|is no path"):
        place_of(study, named)


def test_inside_the_folder_every_form_is_taken(study):
    assert place_of(study, "events.sqlite") == study.folder / "events.sqlite"
    assert place_of(study, "sqlite:///events.sqlite") == study.folder / "events.sqlite"
    assert place_of(study, "duckdb:///x.duckdb") == f"duckdb:///{study.folder}/x.duckdb"
    assert place_of(study, "EVENTS_URL") == "EVENTS_URL"


def test_a_duckdb_file_that_is_not_there_is_not_made(study):
    with pytest.raises(DataError, match="no event log there"):
        open_log(place_of(study, "duckdb:///x.duckdb"))
    assert not (study.folder / "x.duckdb").exists()


def test_export_reads_and_creates_nothing_in_a_foreign_database(study, monkeypatch):
    import sqlite3

    path = study.root / "foreign.sqlite"
    foreign = sqlite3.connect(path)
    foreign.execute("create table mine (n)")
    foreign.commit()
    foreign.close()
    before = path.read_bytes()
    monkeypatch.setenv("LOG_URL", f"sqlite:///{path}")
    (study.folder / "study.yaml").write_text("study: s\nevent_log: LOG_URL\n")
    with pytest.raises(DataError, match="no table exposures or outcomes; it is not an event log"):
        export("s", study.root / "out", root=study.root)
    assert path.read_bytes() == before
    monkeypatch.setenv("LOG_URL", f"sqlite:///{study.root}/absent.sqlite")
    with pytest.raises(DataError, match="not opened"):
        export("s", study.root / "out", root=study.root)
    assert sorted(one.name for one in study.root.iterdir()) == [
        "data",
        "foreign.sqlite",
        "notebooks",
    ]


@pytest.mark.parametrize("port", ["8080/v1", "5432", "6379/0?x=a@b.example"])
def test_a_port_is_no_password(port):
    assert passwords_in(f"http://127.0.0.1:{port}") == []
