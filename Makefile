# llmctl: two commands do everything on a fresh machine.
#   make tiny    environment, install, then raw pages -> text -> tokens -> model -> its facts
#   make test    environment, install, then all checks and tests
# TORCH_INDEX=URL takes torch from that package index (a CPU build, say); PYTHON names the python.

PYTHON ?= python3
VENV ?= .venv
TORCH_INDEX ?=
RECIPE ?= tiny
RUN := runs/$(RECIPE)
BIN := $(VENV)/bin
LLMCTL := $(BIN)/llmctl
FLAGS := --recipe recipes/$(RECIPE).yaml
READY := $(VENV)/.ready

.PHONY: help tiny test check stages install clean run
# Each artifact is made once; a stage that finds its own run finished says so, and --force replaces
# what another recipe or other inputs left in its place.
.SECONDARY:  # finished artifacts are not intermediates

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

install: $(READY)  ## the environment in .venv

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q -c constraints.txt $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) torch
	$(BIN)/pip install -q -c constraints.txt -e '.[dev]'
	touch $@

tiny:  ## raw pages to a base model and its facts, on CPU, in minutes
	@$(MAKE) --no-print-directory run RECIPE=tiny

run: $(RUN)/eval/manifest.json  ## the whole run of RECIPE=name
	@echo; echo "== a sample from the model"
	@$(LLMCTL) generate $(RUN)/pretrain --max-tokens 60 -p "The river"
	@echo; echo "== what became of each class of planted pages"
	@$(LLMCTL) inspect $(RUN)/crawl-filter --truth $(RUN)/synth
	@echo; echo "== what the model has learned"
	@cat $(RUN)/eval/report.txt
	@echo; $(LLMCTL) inspect $(RUN)

$(RUN)/synth/manifest.json: $(READY) recipes/$(RECIPE).yaml
	$(LLMCTL) synth $(FLAGS) -o $(@D) --force && touch $@

$(RUN)/crawl-filter/manifest.json: $(RUN)/synth/manifest.json
	$(LLMCTL) crawl-filter $(<D) $(FLAGS) -o $(@D) --force && touch $@

$(RUN)/tokenize/manifest.json: $(RUN)/crawl-filter/manifest.json
	$(LLMCTL) tokenize $(<D) $(FLAGS) -o $(@D) --force && touch $@

$(RUN)/pretrain/manifest.json: $(RUN)/tokenize/manifest.json
	$(LLMCTL) pretrain $(<D) $(FLAGS) -o $(@D) --force && touch $@

$(RUN)/eval/manifest.json: $(RUN)/pretrain/manifest.json
	$(LLMCTL) eval $(<D) $(FLAGS) -o $(@D) --force && touch $@

test: check  ## style, types and every test
	$(BIN)/python -m pytest

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

stages: $(READY)  ## render stages/*.yaml from the dataclasses
	$(BIN)/python -m llmctl.render stages

clean:  ## remove runs and the environment
	rm -rf runs $(VENV)
