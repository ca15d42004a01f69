PYTHON ?= python3
LOWEST_PYTHON ?= python3.10
VENV := .venv
RUN := $(VENV)/bin/python

# The stamp lies inside the environment, so that a deleted .venv is made again.
INSTALLED := $(VENV)/.installed
DOCS_INSTALLED := $(VENV)/.docs-installed

.PHONY: demo test docs notebook lint dist smoke smoke-lowest clean

demo: $(INSTALLED)  ## Complete real tables and missing modalities, compare, draw
	$(RUN) examples/plot_quick_start.py
	$(RUN) examples/plot_missing_modality.py

test: $(INSTALLED)  ## Lint, check the types and run the whole suite
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy
	$(RUN) -m pytest --numprocesses auto --maxprocesses 8 --dist worksteal

docs: $(DOCS_INSTALLED)  ## Build the documentation in docs/_build/html
	$(RUN) -m sphinx -W --keep-going -b html docs docs/_build/html

notebook: $(INSTALLED)  ## Write the paired notebook anew from its script
	$(RUN) docs/notebook.py

dist: $(INSTALLED)  ## Build the wheel and the source distribution, and check them
	rm -rf build dist
	$(RUN) -m pip install --quiet --constraint constraints.txt --editable ".[release]"
	$(RUN) -m build
	$(RUN) -m twine check --strict dist/*

smoke: dist  ## Install the wheel with the newest versions, and use it
	$(PYTHON) -m venv dist/newest
	dist/newest/bin/python -m pip install --quiet -c constraints.txt dist/*.whl
	cd dist && newest/bin/python ../tests/smoke.py

smoke-lowest: dist  ## The same with the lowest; on Linux torch 2.4 brings 3 GB of CUDA
	$(RUN) -m uv venv --quiet --python $(LOWEST_PYTHON) dist/lowest
	$(RUN) -m uv pip install --quiet --python dist/lowest --no-build \
		--resolution lowest-direct --requirement pyproject.toml
	$(RUN) -m uv pip install --quiet --python dist/lowest --no-deps dist/*.whl
	cd dist && lowest/bin/python ../tests/smoke.py

lint: $(INSTALLED)
	$(RUN) -m ruff check --fix .
	$(RUN) -m ruff format .

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --constraint constraints.txt --editable ".[dev]"
	touch $@

$(DOCS_INSTALLED): $(INSTALLED)
	$(RUN) -m pip install --quiet --constraint constraints.txt --editable ".[docs]"
	touch $@

clean:
	rm -rf $(VENV) results .pytest_cache .mypy_cache .ruff_cache .hypothesis build dist
	rm -rf docs/_build docs/_diagrams docs/_examples docs/gallery docs/generated
	rm -f docs/sg_execution_times.rst
