# `make demo` and `make test` do everything on a fresh machine: they make .venv with torch and torchvision of one index.
# `make bench` measures the loader and the kernels, `make bench WHAT=loader DATA=VOC_ROOT` the loader on real photographs.
PYTHON ?= python3
BIN := .venv/bin
# What `make demo` and `make compare` train; the demo all at once, as three runs one after the other would leave one of
# two cores idle.
DEMO := supervised_shapes cutmix_seg_shapes fixmatch_shapes --shares 1/16 --seeds 1 --steps 400 --eval-every 200 \
	--jobs 3
COMPARE := supervised_shapes cac_shapes cps_shapes cutmix_cps_shapes mean_teacher_shapes cutmix_seg_shapes u2pl_shapes \
	fixmatch_shapes unimatch_shapes --shares 1/16 all --eval-every 200

.PHONY: setup demo test lint bench compare clean

setup: .venv/ready

.venv/ready: setup.py pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --progress-bar off -e '.[train,dev]'
	@touch $@

demo: setup
	$(BIN)/semiseg compare $(DEMO) --out runs/demo

compare: setup
	$(BIN)/semiseg compare $(COMPARE) --out runs/compare

# A process for each core, up to 8: each holds torch, and one thread of it. The tests of a file stay in one process, where
# they share what is expensive, and files start in their order, in which the long ones are not the last. The second run
# gives the Triton kernels the CPU's tensors, in Triton's interpreter, and no GPU's.
test: export OMP_NUM_THREADS = 1
test: PYTEST = $(BIN)/python -m pytest -n logical --maxprocesses 8 --dist loadfile --no-loadscope-reorder \
	--benchmark-disable
test: setup
	$(PYTEST)
	CUDA_VISIBLE_DEVICES= TRITON_INTERPRET=1 $(PYTEST) tests/kernels tests/engine/training/test_step.py -k "kernels"

# mypy looks for a package in a folder of its name, which the links make.
lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	@mkdir -p build/typed/semiseg && ln -sfn $(CURDIR)/engine $(CURDIR)/kernels $(CURDIR)/pipelines $(CURDIR)/recipes build/typed/semiseg
	$(BIN)/mypy

bench: setup
	$(BIN)/semiseg bench $(WHAT) $(if $(DATA),--data $(DATA))

clean:
	rm -rf .venv build dist *.egg-info
