# `make demo` and `make test` do everything on a fresh machine: they make .venv with torch and torchvision of one index.
# `make bench DATA=VOC_ROOT` measures on real photographs, without DATA on the embedded data set.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: setup demo test lint bench compare clean

setup: .venv/ready

.venv/ready: setup.py pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --progress-bar off -e '.[train,dev]'
	@touch $@

demo: setup
	$(BIN)/python recipes/compare_shapes.py --smoke

compare: setup
	$(BIN)/python recipes/compare_shapes.py --precision bf16

test: setup
	$(BIN)/python -m pytest

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

bench: setup
	$(BIN)/semiseg bench $(if $(DATA),--data $(DATA))

clean:
	rm -rf .venv build dist *.egg-info
