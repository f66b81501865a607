# `make help` lists the targets: the lines below that carry a ##.
#
# Everything happens in .venv and build/. Stamps there remember what is done, so that a second
# call is fast; a compiler runs only for what has changed.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules --no-print-directory

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export PIP_DISABLE_PIP_VERSION_CHECK := 1

# Passed on: make test ARGS="-k watch", make bench ARGS=--tiny
ARGS ?=

COMPILED := setup.py $(wildcard csrc/*.[ch] xsd/*/*.pyx xsd/*/*.pxd)
SOURCES := $(COMPILED) $(shell find xsd -name '*.py' -o -name '*.pyi')

SEED ?= 1
SEEDS ?= 1
STEPS ?= 10000
COUNT ?= 50
JOBS ?= $(shell nproc)
TARGET ?= all
SECONDS ?= 60
STORE ?= xsd
REQUESTS ?= 20000
MINUTES ?= 60

.PHONY: help run build test quick lint bench profile realxen sim witness fuzz soak mutants coverage bench-quick bench-canary report asan debug annotate tidy clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: build ## start a daemon, show what it can do, serve until Ctrl-C
	@exec $(BIN)/xsd demo $(ARGS)

build: build/.release ## compile everything and put xsd into .venv/bin

test: build $(VENV)/.bench ## the whole test suite; ARGS goes to pytest
	@$(BIN)/python -m pytest $(ARGS)

quick: build $(VENV)/.bench ## the tests that together take less than half a minute
	@XSD_ORACLE_EXAMPLES=20 $(BIN)/python -m pytest -q -m "not slow" --hypothesis-profile=quick \
		--ignore=tests/live --ignore=tests/bench --ignore=tests/csrc tests $(ARGS)

lint: build $(VENV)/.bench ## style and types: ruff, clang-format, mypy
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check --diff .
	@$(BIN)/clang-format --dry-run --Werror csrc/*.[ch] tests/*/*.[ch] bench/*.[ch] bench/*/*.[ch]
	@$(BIN)/mypy

# ROW: only these, as ROW=B4 or ROW=B1-read,B15*
ROW ?=

bench: build $(VENV)/.bench ## the benchmarks, half an hour; ROW=B4 some, ARGS=--tiny only tries them
	@$(BIN)/python -m bench $(if $(ROW),--rows '$(ROW)') $(ARGS)

bench-quick: build $(VENV)/.bench ## a few rows of the benchmarks, less than three minutes
	@$(BIN)/python -m bench --quick $(ARGS)

bench-canary: build $(VENV)/.bench ## would a slowdown be noticed? one is planted; ARGS="--rows B5t-own"
	@$(BIN)/python -m bench canary $(ARGS)

FLIGHT ?= build/bench/last.json

report: build $(VENV)/.bench ## the last flight beside the baseline; FLIGHT=FILE another one
	@$(BIN)/python -m bench report $(FLIGHT) --out build/bench/report $(ARGS)

profile: build ## where a request's time goes, by layer; ARGS is a row, as ARGS=B1n-16
	@$(BIN)/python -m bench.profile $(ARGS)

realxen: build ## boot a real Xen in an emulator with xsd as its xenstored; STORE=c|ocaml: another
	@$(BIN)/python tests/realxen/run.py --store $(STORE) $(ARGS)

sim: build ## the simulator; SEED, SEEDS (how many), STEPS (of each), JOBS
	@PYTHONPATH=.:tests $(BIN)/python -m sim --seed $(SEED) --seeds $(SEEDS) --steps $(STEPS) \
		--jobs $(JOBS) $(ARGS)

witness: build ## the same random requests to Debian's daemons and ours; REQUESTS, SEED
	@PYTHONPATH=.:tests $(BIN)/python -m witness --requests $(REQUESTS) --seed $(SEED) $(ARGS)

fuzz: build ## look for faults; TARGET (see make fuzz TARGET=list), SECONDS
	@nice -n 10 $(BIN)/python tests/fuzz/run.py $(if $(filter list,$(TARGET)),targets,fuzz $(TARGET) $(SECONDS))

soak: build ## mixed load on one daemon, which must keep nothing of it; MINUTES, SEED
	@PYTHONPATH=.:tests nice -n 5 $(BIN)/python -m haul --minutes $(MINUTES) --seed $(SEED) $(ARGS)

mutants: build ## one-line faults, one at a time: who notices? COUNT, SEED, JOBS
	@PYTHONPATH=.:tests nice -n 10 $(BIN)/python -m mutation --count $(COUNT) --seed $(SEED) \
		--jobs $(JOBS) $(ARGS)

# Two flavours that are built beside the release one, and never into it: their modules are in

# Three flavours that are built beside the release one, and never into it: their modules are in
# build/<flavour>/lib, and PYTHONPATH says who is to use them.

debug: build/.debug ## build without optimisation, with assertions, into build/debug/lib
	@echo "Built. To use it:  PYTHONPATH=build/debug/lib $(BIN)/xsd daemon --no-fork --no-xen --rundir DIR"
	@echo "In a debugger:     PYTHONPATH=build/debug/lib gdb --args $(BIN)/python $(BIN)/xsd ..."

# The sanitizers' libraries must come first in a process that was built without them. Leaks are
# the business of tests that compare the allocator's accounts: Python keeps much until it ends.
# -P and the order of pythonpath keep the modules of the checkout out of the way.
ASAN := XSD_FLAVOUR=asan PYTHONPATH=$(CURDIR)/build/asan/lib \
	ASAN_OPTIONS=detect_leaks=0:abort_on_error=1 \
	UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1

asan: build build/.asan $(VENV)/.bench ## the test suite on a build with address and UB sanitizers
	@$(ASAN) LD_PRELOAD="$$(gcc -print-file-name=libasan.so) $$(gcc -print-file-name=libubsan.so)" \
		$(BIN)/python -P -m pytest -p no:cacheprovider \
		-o pythonpath="build/asan/lib . tests tests/cli tests/house tests/realxen" $(ARGS)

# What counts is that a branch was taken, not how often; a process tells when it exits. The
# tests of other builds, of documents and of a whole machine have nothing to add.
COUNTING := XSD_FLAVOUR=coverage PYTHONPATH=$(CURDIR)/build/coverage/lib
UNCOUNTED := $(addprefix --ignore=tests/,bench fuzz house mutation realxen)

coverage: build build/.coverage ## which branches of csrc and xsd/core no test takes, and why
	@find build/coverage -name '*.gcda' -delete
	@$(COUNTING) $(BIN)/python -P -m pytest -q -p no:cacheprovider --hypothesis-seed=1 $(UNCOUNTED) \
		-o pythonpath="build/coverage/lib . tests tests/cli tests/house tests/realxen" tests $(ARGS)
	@$(COUNTING):.:tests $(BIN)/python -P -m sim --seeds 10 --steps 10000 --jobs 1
	@PYTHONPATH=tests $(BIN)/python -m branches

annotate: $(VENV)/.ready ## write what Cython makes of each line, as HTML
	@$(BIN)/python -c "$$ANNOTATE"
	@echo "Yellow lines call Python. Open:"
	@ls build/annotate/xsd/*/*.html

tidy: $(VENV)/.ready ## format the sources in place and mend what ruff can mend
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .
	@$(BIN)/clang-format -i csrc/*.[ch] bench/*.[ch] bench/*/*.[ch]

clean: ## remove everything that was built, and .venv
	@rm -rf build dist *.egg-info $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis .benchmarks
	@find xsd tests bench -name '*.so' -delete -o -name __pycache__ -prune -exec rm -rf {} +

# ---- how ---------------------------------------------------------------------------------

define ANNOTATE
from pathlib import Path
from Cython.Build import cythonize
sources = sorted(map(str, [*Path("xsd/core").glob("*.pyx"), *Path("xsd/io").glob("*.pyx")]))
cythonize(sources, build_dir="build/annotate", annotate=True, force=True, quiet=True,
          compiler_directives={"language_level": "3"})
endef
export ANNOTATE

build/.release: $(COMPILED) pyproject.toml $(VENV)/.ready
	@mkdir -p build
	@touch $@.begun
	@echo "building xsd; the first time takes a minute"
	@$(BIN)/python setup.py -q build_ext --inplace 2>&1 | { grep -vE 'Cythonizing|^Compiling' || true; }
	@if [ ! -x $(BIN)/xsd ] || [ pyproject.toml -nt $@ ]; then \
		$(BIN)/pip install -q --no-deps --no-build-isolation -e . ; \
	fi
	@mv $@.begun $@ # what was edited meanwhile is newer

build/.debug build/.asan build/.coverage: build/.%: $(SOURCES) $(VENV)/.ready
	@mkdir -p build
	@touch $@.begun
	@echo "building xsd, flavour $*"
	@XSD_BUILD=$* $(BIN)/python setup.py -q build --build-base build/$* --build-lib build/$*/lib \
		2>&1 | { grep -vE 'Cythonizing|^Compiling|byte-compiling|^$$' || true; }
	@mv $@.begun $@

# What must be there before anything else. A fresh Debian has python3 without venv and headers.
define REQUIREMENTS
import tomllib
with open("pyproject.toml", "rb") as file:
    project = tomllib.load(file)
print(*project["build-system"]["requires"], *project["project"]["dependencies"],
      *project["project"]["optional-dependencies"]["dev"], sep="\n")
endef
export REQUIREMENTS

$(VENV)/.ready: pyproject.toml
	@command -v $(PYTHON) >/dev/null || { echo "xsd needs python3, 3.11 or newer" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "xsd needs Python 3.11 or newer, $(PYTHON) is $$($(PYTHON) -V)" >&2; exit 1; }
	@missing=""; \
	$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || missing="python3-venv"; \
	$(PYTHON) -c 'import os, sys, sysconfig as s; \
	sys.exit(not os.path.exists(os.path.join(s.get_path("include"), "Python.h")))' \
		|| missing="$$missing python3-dev"; \
	if [ -n "$$missing" ]; then \
		if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
			echo "installing with apt-get:" $$missing; \
			apt-get -qq update && \
			DEBIAN_FRONTEND=noninteractive apt-get -qq install -y $$missing >/dev/null; \
		else \
			echo "missing:" $$missing "- install with: apt-get install" $$missing >&2; exit 1; \
		fi; \
	fi
	@[ -x $(BIN)/pip ] || { echo "making $(VENV)"; rm -rf $(VENV); $(PYTHON) -m venv $(VENV); }
	@echo "installing what building and testing need into $(VENV)"
	@$(BIN)/python -c "$$REQUIREMENTS" > $(VENV)/requirements.txt
	@$(BIN)/pip install -q -r $(VENV)/requirements.txt
	@touch $@

# Plots want a library that is larger than all the rest, so it comes only when it is asked for.
$(VENV)/.bench: pyproject.toml $(VENV)/.ready
	@echo "installing what flight reports need into $(VENV)"
	@$(BIN)/python -c 'import tomllib; file = open("pyproject.toml", "rb"); \
	print(*tomllib.load(file)["project"]["optional-dependencies"]["bench"], sep="\n")' \
		> $(VENV)/bench.txt
	@$(BIN)/pip install -q -r $(VENV)/bench.txt
	@touch $@
