# Each target sets up what it needs; all it takes is Python 3.11 or newer and make (on Windows: WSL).
PYTHON ?= python3
BIN := .venv/bin
STUDY ?= icd10
# data/ and reports/ in reach; nothing asked of other machines
LAB := --ServerApp.root_dir=. --LabApp.default_url=/lab/tree/notebooks --LabApp.news_url=None \
	--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate --LabApp.extension_manager=readonly \
	$(if $(filter 0,$(shell id -u)),--allow-root)
# nor asked of the reader: whether news are wanted, a setting that no option reaches
QUIET := {"@jupyterlab/apputils-extension:notification": {"fetchNews": "false", "checkForUpdates": false}}
SERVE := $(BIN)/python data/icd10/serve.py

.DEFAULT_GOAL := help
.PHONY: help install report live lab test test-slow test-all lint lock clean

help:  ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

install: .venv/run.stamp  ## evalkit in .venv, for models and files of your own

report: .venv/demo.stamp  ## the demo report from recorded answers, with a live re-ask of a sample
	@$(SERVE) --optional -- $(BIN)/evalkit run $(STUDY)

live: .venv/demo.stamp  ## the demo report with every answer asked afresh from the local models
	@$(SERVE) -- $(BIN)/evalkit run $(STUDY) --fresh

lab: .venv/run.stamp  ## JupyterLab in the project, with the notebooks open
	@mkdir -p .venv/share/jupyter/lab/settings && echo '$(QUIET)' > .venv/share/jupyter/lab/settings/overrides.json
	@$(BIN)/jupyter lab $(LAB)

test: .venv/dev.stamp  ## the quick tests: nothing but Python needed
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "not slow and not browser and not postgres and not spark and not model"

test-slow: .venv/all.stamp  ## the others: need chromium, PostgreSQL and Java 17; a missing tool is a failure
	$(BIN)/python -m pytest -m "slow or browser or postgres or spark or model"

test-all: test test-slow  ## every test

lint: .venv/dev.stamp  ## formatting, lints, types, import floors
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright
	$(BIN)/lint-imports

lock: .venv/run.stamp  ## requirements.lock from requirements.txt
	$(BIN)/uv pip compile -q --universal --generate-hashes --python-version 3.11 --no-header --upgrade requirements.txt -o requirements.lock

clean:  ## empties reports/, which can all be made again; data/ stays
	find reports -mindepth 1 ! -name README.md -delete

.venv/bin/uv:
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("evalkit needs Python 3.11 or newer; name one: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -q --disable-pip-version-check uv

.venv/run.stamp: requirements.lock pyproject.toml | .venv/bin/uv
	$(BIN)/uv pip install -q --require-hashes -r requirements.lock
	$(BIN)/uv pip install -q --no-deps -e .
	@touch $@

.venv/demo.stamp: .venv/run.stamp data/icd10/requirements.txt
	-$(BIN)/uv pip install -q --no-deps -r data/icd10/requirements.txt
	@touch $@

.venv/dev.stamp: .venv/run.stamp
	$(BIN)/uv pip install -q -c requirements.lock -e ".[dev]"
	@touch $@

.venv/all.stamp: .venv/dev.stamp .venv/demo.stamp
	$(BIN)/uv pip install -q -c requirements.lock -e ".[dev,postgres,spark]"
	$(BIN)/uv pip install -q --no-deps -r data/icd10/recipe/data-requirements.txt
	@touch $@
