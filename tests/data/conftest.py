"""The shipped studies' files, and the demo's server as a module."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest
import yaml

DATA = Path(__file__).parents[2] / "data"


@pytest.fixture(scope="session")
def data():
    return DATA


@pytest.fixture(scope="session")
def rows():
    """Reads a study's chat file as plain rows."""

    def read(study, name):
        return [
            json.loads(line)
            for line in (DATA / study / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
        ]

    return read


@pytest.fixture(scope="session")
def parameters():
    """Reads a study's parameters."""
    return lambda study: yaml.safe_load((DATA / study / "study.yaml").read_text(encoding="utf-8"))


@pytest.fixture(scope="session")
def serve():
    """data/icd10/serve.py, which is a script in no package."""
    spec = importlib.util.spec_from_file_location("icd10_serve", DATA / "icd10" / "serve.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module
