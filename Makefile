PYTHON ?= python3
VENV := .venv
# Where the clone lies may have a space in its name: nothing names it but the PATH.
BIN := $(VENV)/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)
# pip does not compile what it installs, which takes a minute: the first process that needs a module
# keeps it for those after it.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: study studies methods use check rehearse report experiments why compare predict quick test nightly \
	env readme clean-store

## study: create the environment and run the study of params.yaml
study: env check
	$(BIN)/dvc repro

## studies: list the studies that STUDY may name, with their size
studies: env
	@$(BIN)/python -m peft_study.presets list

## methods: list the methods that a study may declare, with their sources
methods: env
	@$(BIN)/python -m peft_study.methods

## use: write a study into params.yaml: make use STUDY=name
use: env
	@$(BIN)/python -m peft_study.presets use '$(STUDY)'

## check: validate params.yaml, or studies/STUDY.yaml, without training
check: env
	@$(BIN)/python -m peft_study.presets check '$(STUDY)'

## rehearse: run a study whole, made tiny, in minutes: make rehearse STUDY=name; all without STUDY
rehearse: env
	@$(BIN)/python -m peft_study.rehearsal '$(STUDY)'

## report: draw findings from the results that are there, also if a cell failed or is missing
report: env
	$(BIN)/dvc repro --single-item aggregate curves claims figures report export

## experiments: the experiments of DVC, their changed parameters and main scores
experiments: env
	@$(BIN)/python -m peft_study.experiments

## why: what changed in a stage's configuration since it last ran: make why STAGE=train@lora
why: env
	@$(BIN)/python -m peft_study.why '$(STAGE)'

## compare: is a change more than chance? make compare REV=main, or a commit or an experiment
compare: env
	@$(BIN)/python -m peft_study.findings.versions '$(REV)'

## predict: apply saved weights to texts of one's own: make predict ADAPTER=exports/lora/task FILE=mine.tsv
predict: env
	@$(BIN)/python -m peft_study.predict '$(ADAPTER)' '$(FILE)' '$(OUT)'

## quick: lint, types and unit tests
quick: env
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest --numprocesses auto -m "not slow"

## test: create the environment; lint, types and all tests
test: env
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest --numprocesses auto

## nightly: as test, but each fuzzing test draws 5,000 inputs anew, and runs are killed more often
nightly: export FUZZ_EXAMPLES := 5000
nightly: test

## env: create .venv, or fill the empty folder to which it links, from the pinned versions, if they changed
env: $(VENV)/installed

$(VENV)/installed: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "error: $(PYTHON) is too old; Python 3.11 or newer is needed: make PYTHON=python3.11" >&2; exit 2; }
	@test -e $@ || grep -qs "^prompt = 'peft_study'" $(VENV)/pyvenv.cfg || test -z "$$(ls -A $(VENV)/ 2>/dev/null)" \
		|| { echo "error: $(VENV) holds what 'make env' did not make; move it away" >&2; exit 2; }
	$(PYTHON) -m venv --clear --prompt peft_study "$$($(PYTHON) -c 'import os; print(os.path.realpath("$(VENV)"))')"
	$(BIN)/python -m pip install --disable-pip-version-check --quiet --no-deps --no-compile --requirement requirements.lock
	$(BIN)/python -m pip install --disable-pip-version-check --quiet --no-deps --editable .
	touch $@

## readme: write the results of the last run into the README
readme: env
	$(BIN)/python -m peft_study.findings.readme

## clean-store: empty the run store; results stay, but nothing is taken up again
clean-store: env
	$(BIN)/python -c 'from peft_study.running.store import RunStore, store_folder; RunStore(store_folder(), 0).trim()'
