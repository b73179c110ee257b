# llmctl: two commands do everything on a fresh machine.
#   make tiny    environment, install, then raw pages -> base model -> assistant -> what it shows
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
# the second sft: what the probe found twice, well-known facts, and a little of the skills again
SKILLS := identity,smalltalk,skill,context,search,steps,direct,python,spelling,story,several
HONEST := --data '$(RUN)/synth\#kind=known' --data '$(RUN)/synth\#kind=$(SKILLS)=0.2' --set lr=4.0e-4
# against a reward model, watched by a judge it has not seen: are the answers right?
PROXY := --data $(RUN)/synth/problems.parquet --gold math --set lr=2.0e-4 --set eval_steps=8

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

tiny:  ## raw pages to an assistant, and what can be claimed of it, on CPU, in minutes
	@$(MAKE) --no-print-directory run RECIPE=tiny

run: $(RUN)/report/manifest.json $(RUN)/rl-rm/manifest.json  ## the whole run of RECIPE=name
	@echo; echo "== what became of each class of planted pages"
	@$(LLMCTL) inspect $(RUN)/crawl-filter --truth $(RUN)/synth
	@echo; echo "== what the base model has learned"
	@cat $(RUN)/eval/report.txt
	@echo; echo "== what the run shows"
	@$(LLMCTL) inspect $(RUN) --claims
	@echo; $(LLMCTL) inspect $(RUN)
	@echo; echo "talk to it: $(LLMCTL) chat $(RUN)/rl"

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

# an assistant; then what it knows, and an assistant that says when it does not know
$(RUN)/sft/manifest.json: $(RUN)/pretrain/manifest.json $(RUN)/eval/manifest.json
	$(LLMCTL) sft $(<D) $(FLAGS) -o $(@D) --force && touch $@

$(RUN)/probe/manifest.json: $(RUN)/sft/manifest.json
	$(LLMCTL) probe $(<D) $(FLAGS) -o $(@D) --force && touch $@

$(RUN)/honest/manifest.json: $(RUN)/sft/manifest.json $(RUN)/probe/manifest.json
	$(LLMCTL) sft $(<D) $(FLAGS) --data $(RUN)/probe=2 $(HONEST) -o $(@D) --force && touch $@

# what people prefer; then reinforcement learning, by right answers and by that reward model
$(RUN)/rm/manifest.json: $(RUN)/honest/manifest.json
	$(LLMCTL) rm $(<D) $(FLAGS) -o $(@D) --force && touch $@

$(RUN)/rl/manifest.json: $(RUN)/honest/manifest.json
	$(LLMCTL) rl $(<D) $(FLAGS) -o $(@D) --force && touch $@

$(RUN)/rl-rm/manifest.json: $(RUN)/honest/manifest.json $(RUN)/rm/manifest.json
	$(LLMCTL) rl $(<D) $(FLAGS) --reward $(RUN)/rm $(PROXY) -o $(@D) --force && touch $@

MODELS := pretrain sft honest rl
$(RUN)/report/manifest.json: $(MODELS:%=$(RUN)/%/manifest.json)
	$(LLMCTL) eval $(^D) $(FLAGS) --abilities all -o $(@D) --force && touch $@

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
