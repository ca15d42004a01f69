PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python

# The stamp lies inside the environment, so that a deleted .venv is made again.
INSTALLED := $(VENV)/.installed
DOCS_INSTALLED := $(VENV)/.docs-installed

.PHONY: demo test docs notebook lint clean

demo: $(INSTALLED)  ## Complete real tables and missing modalities, compare, draw
	$(RUN) examples/plot_quick_start.py
	$(RUN) examples/plot_missing_modality.py

test: $(INSTALLED)  ## Lint and run the whole suite
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m pytest --numprocesses auto --maxprocesses 8 --dist worksteal

docs: $(DOCS_INSTALLED)  ## Build the documentation in docs/_build/html
	$(RUN) -m sphinx -W --keep-going -b html docs docs/_build/html

notebook: $(INSTALLED)  ## Write the paired notebook anew from its script
	$(RUN) docs/notebook.py

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
	rm -rf $(VENV) results .pytest_cache .ruff_cache .hypothesis
	rm -rf docs/_build docs/_diagrams docs/_examples docs/gallery docs/generated
	rm -f docs/sg_execution_times.rst
