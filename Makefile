PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python

# The stamp lies inside the environment, so that a deleted .venv is made again.
INSTALLED := $(VENV)/.installed

.PHONY: demo test lint clean

demo: $(INSTALLED)  ## Complete a real table, compare with the baselines, draw the result
	$(RUN) examples/plot_quick_start.py

test: $(INSTALLED)  ## Lint and run the whole suite
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m pytest

lint: $(INSTALLED)
	$(RUN) -m ruff check --fix .
	$(RUN) -m ruff format .

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --constraint constraints.txt --editable ".[dev]"
	touch $@

clean:
	rm -rf $(VENV) results .pytest_cache .ruff_cache .hypothesis
