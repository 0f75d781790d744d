.DEFAULT_GOAL := help
.PHONY: help quickstart test lint format space clean

# make PYTHON=python3.12 test                    another Python than the first fitting one
# make TORCH="torch==2.15.0" test                another torch than the one in constraints.txt
PYTHON ?=
TORCH ?=
export PYTHON TORCH

# Makes .venv at the first call, then runs a command in it. Each target does its own set-up.
run := ./scripts/setup_env.sh

help:  ## Say what can be made
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/make \1|\2/p' $(MAKEFILE_LIST) | awk -F'|' '{printf "  %-18s%s\n", $$1, $$2}'

quickstart:  ## Train a small tokenizer on embedded photographs, evaluate it, draw what it does (2 minutes)
	@$(run) vistok quickstart --output_dir outputs/quickstart

test:  ## Run every test, the examples in docstrings and README among them (5 minutes)
	@$(run) python -m pytest -n auto --maxprocesses 8 --dist loadfile

lint:  ## Check style and format
	@$(run) ruff check .
	@$(run) ruff format --check .

format:  ## Put the code into shape
	@$(run) ruff check --fix .
	@$(run) ruff format .

space:  ## Start the Gradio Space on this machine
	@$(run) python spaces/reconstruct/app.py

clean:  ## Delete the environment, the caches and the build files; outputs/ stays
	@if [ -e .venv ] && [ ! -e .venv/.vistok-made ]; then echo "make did not make .venv: it stays."; else rm -rf .venv; fi
	rm -rf .venv.old.* .venv.lock .cache .pytest_cache .ruff_cache .hypothesis build dist vistok.egg-info
	find vistok scripts spaces tests -name __pycache__ -type d -prune -exec rm -rf {} +
