# Everything from a fresh clone: each target sets up what it needs in .venv first.
# Python's build rules are in setup.py, the settings of the tools in pyproject.toml.

PYTHON ?= python3
ARGS ?=
SANITIZE ?= address,undefined thread
QUICK ?=
CLANG ?= clang
FUZZ_SECONDS ?= 60

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip -qq --disable-pip-version-check install
REMARKS := -X warn.unused=True -X warn.unreachable=True
SDIST_TESTS := $(patsubst %,tests/test_%.py,echo client packaging source_rules)
# Measuring takes its time: a target of its own keeps `make test` below five minutes.
MEASURING := $(wildcard $(patsubst %,tests/test_%.py,cli_bench* cli_ping cli_report cluster compare \
    datagram_ping deploy histogram* identify_[cl]* load* measure_* merge page* pinger* saved_results \
    send_proxy summary timings))
# So do the I/O models, which are processes: the conformance suite and the tutorial run them.
MODELS := $(wildcard tests/test_models*.py) tests/test_tutorial.py
# And what a program embeds: callbacks, faults, fixtures, examples, a server's life in a process.
EMBEDDING := $(wildcard $(patsubst %,tests/test_%.py,aio black_hole callback* examples exit \
    fault_* fork lifecycle pytest_plugin refuse start))
# And what can be seen: accept queues of any listener, statistics, metrics, the access log.
OBSERVING := $(wildcard $(patsubst %,tests/test_%.py,access_log cli_queues how_to_queues \
    listen_queue metrics queues* stats syn_queue tcp_info))
# And whether a path is honest: fastecho check, the orders of --probes, middle boxes; who is behind it.
# And whether the documentation is: every command that it shows.
PATHS := $(wildcard $(patsubst %,tests/test_%.py,check_* docs_commands drain_delay how_to_[chtu]* \
    identify probing proxy*))
# And what a server needs that is left running: systemd, restarts, rights; and echo over UDP, services.
RUNNING := $(wildcard $(patsubst %,tests/test_%.py,datagram_connect datagrams handover* how_to_[rs]* \
    notify passed rights services shell_files storm system_calls udp* units))
# And calls that fail, and any input: of each campaign (make faults, make fuzz) a part.
FAILING := tests/faults tests/test_fuzz.py
SOURCES := $(wildcard fastecho/*.pyx fastecho/*.pxd src_c/*.h)

# Stamps: an empty file in .venv says that a step was done. The name of the first holds
# the name of the Python that was asked for, so another PYTHON=... makes .venv anew.
MADE := $(VENV)/.made-$(subst /,_,$(PYTHON))
TOOLS := $(VENV)/.tools
INSTALLED := $(VENV)/.installed
COMPILED := $(VENV)/.compiled

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:
.PHONY: help serve test test-measure test-models test-embed test-observe test-paths \
    test-running test-faults test-network lint docs bench alarms faults endings scale soak debug \
    sanitize fuzz coverage sdist wheel cross clean
.PHONY: .libfuzzer

help: ## list the targets
	@echo "fastecho: make TARGET [PYTHON=python3.12] [ARGS='...']"
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-12s %s\n", $$1, $$2 }' Makefile

serve: $(COMPILED) ## run the echo server; ARGS='--bind :7 --threads 2' are its options
	@exec $(BIN)/fastecho serve $(ARGS)

test: $(COMPILED) $(VENV)/.test ## test all but what the next seven do; ARGS=tests/test_echo.py chooses
	@exec $(BIN)/python -m pytest $(or $(ARGS),-k 'not model-' $(addprefix --ignore=,$(MEASURING) $(MODELS) $(EMBEDDING) $(OBSERVING) $(PATHS) $(RUNNING) $(FAILING)))

test-measure: $(COMPILED) $(VENV)/.test ## test ping, bench, report and what they are made of
	@exec $(BIN)/python -m pytest $(or $(ARGS),$(MEASURING))

test-models: $(COMPILED) $(VENV)/.test ## test the I/O models: conformance, alone, the tutorial's
	@exec $(BIN)/python -m pytest $(or $(ARGS),-m 'not no_model' tests/conformance $(MODELS))

test-embed: $(COMPILED) $(VENV)/.test ## test callbacks, faults, fixtures, life in a process, the examples
	@exec $(BIN)/python -m pytest $(or $(ARGS),$(EMBEDDING))

test-observe: $(COMPILED) $(VENV)/.test ## test accept queues, statistics, metrics, the access log
	@exec $(BIN)/python -m pytest $(or $(ARGS),$(OBSERVING))

test-paths: $(COMPILED) $(VENV)/.test ## test fastecho check, middle boxes, the PROXY header, what the docs show
	@exec $(BIN)/python -m pytest $(or $(ARGS),$(PATHS))

test-running: $(COMPILED) $(VENV)/.test ## test systemd, restarts, rights, UDP, discard and chargen
	@exec $(BIN)/python -m pytest $(or $(ARGS),$(RUNNING))

test-faults: $(COMPILED) $(VENV)/.test ## test with calls that fail, and the fuzz targets on their corpus
	@exec $(BIN)/python -m pytest $(or $(ARGS),$(FAILING))

test-network: $(COMPILED) $(VENV)/.test ## hosts in namespaces, HAProxy, nginx between them, systemd (root)
	@$(BIN)/python tests/network/rig.py
	@exec $(BIN)/python -m pytest $(or $(ARGS),$(wildcard tests/network/over_*.py))

lint: $(COMPILED) $(VENV)/.lint $(VENV)/.bench ## style, types, stubs, Cython, workflows, wheels
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/stubtest --allowlist .ci/stubtest-allowed fastecho._core fastecho._load
	@echo "cython, which may not say a word"
	@mkdir -p build
	@for file in fastecho/*.pyx; do \
	    said=$$($(BIN)/cython -3 $(REMARKS) -o build/lint.c "$$file" 2>&1) && [ -z "$$said" ] || \
	        { printf '%s\n' "$$said"; exit 1; }; \
	done; rm -f build/lint.c
	$(BIN)/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml
	$(BIN)/kubernetes-validate --strict --quiet deploy/kubernetes/*.yaml
	$(BIN)/zizmor --offline --quiet --no-progress --strict-collection .github
	$(BIN)/cibuildwheel --platform linux --archs x86_64,aarch64 --print-build-identifiers | \
	    diff .ci/wheel-builds -

docs: $(COMPILED) $(VENV)/.test $(VENV)/.docs ## the documentation site, into build/docs
	$(BIN)/python -m manual.site
	@exec $(BIN)/python -m pytest -q tests/test_docs_site.py

bench: $(COMPILED) $(VENV)/.bench ## compare with other servers; ARGS go to benchmarks.echo
	$(BIN)/python -m benchmarks.startup
	$(BIN)/python -m benchmarks.echo $(ARGS)

alarms: $(COMPILED) $(VENV)/.test ## how often fastecho check is wrong: hundreds of runs (root), half an hour
	@exec env PYTHONPATH=tests $(BIN)/python tests/network/alarms.py $(ARGS)

faults: $(COMPILED) $(VENV)/.test ## fail the server's calls, at random and one by one
	@exec env PYTHONPATH=tests $(BIN)/python tests/faults/run.py $(ARGS)

endings: $(COMPILED) $(VENV)/.test ## Ctrl-C at every moment, kills, drains in a storm; some minutes
	@exec env PYTHONPATH=tests $(BIN)/python tests/endings/endings.py $(ARGS)

scale: $(COMPILED) $(VENV)/.test ## hold a million connections (root); ARGS='--connections 9000'
	@exec env PYTHONPATH=tests $(BIN)/python tests/scale/scale.py $(ARGS)

soak: $(COMPILED) $(VENV)/.test ## a million peers come and go, some stay; nothing is lost or kept
	@exec env PYTHONPATH=tests $(BIN)/python tests/soak/soak.py $(ARGS)

# The debug build takes the place of the ordinary one in the tree. Without its stamp the
# ordinary one comes back with the next target.
debug: $(INSTALLED) $(VENV)/.test ## tests on a build with -O0 -g and assertions
	@rm -f $(COMPILED)
	FASTECHO_DEBUG=1 $(BIN)/python setup.py --quiet build_ext --inplace
	@exec $(BIN)/python -m pytest $(ARGS)

# Built and run in build/sanitize: the ordinary build stays. One set of sanitizers after the other.
sanitize: $(INSTALLED) $(VENV)/.test ## tests under sanitizers; SANITIZE=thread, QUICK=1 choose
	@set -e; for names in $(SANITIZE); do \
	    $(BIN)/python tests/sanitize.py $(if $(QUICK),--quick) $$names $(ARGS); \
	done

# What libFuzzer finds new goes to build/fuzz; tests/fuzz/corpus is where it starts.
FUZZED := frame buffer timers histogram_v2 proxy identify load_greeting address_text networks datagram load_udp load_oneway
CALLBACKS := $(wildcard tests/test_callback*.py)
FUZZ := -std=c11 -Wall -Wextra -Werror -O1 -g -Isrc_c \
    -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=all
fuzz: .libfuzzer $(COMPILED) $(VENV)/.test ## random input to src_c and a server; FUZZ_SECONDS=60
	@set -e; for target in $(FUZZED); do \
	    mkdir -p build/fuzz/corpus/$$target; \
	    $(CLANG) $(FUZZ) tests/fuzz/$$target.c -o build/fuzz/$$target; \
	    echo "fuzz: $$target"; \
	    build/fuzz/$$target -max_total_time=$(FUZZ_SECONDS) -max_len=4096 -timeout=10 -verbosity=0 \
	        -print_final_stats=1 -artifact_prefix=build/fuzz/$$target- \
	        build/fuzz/corpus/$$target tests/fuzz/corpus/$$target; \
	done
	$(BIN)/python -m pytest --hypothesis-profile=fuzz tests/test_state_machine.py $(CALLBACKS)

.libfuzzer:
	$(if $(shell command -v $(CLANG)),,$(error $(CLANG) is missing: install a compiler with \
libFuzzer (Debian, Ubuntu: apt install clang), or name one with CLANG=...))

# Built and run in build/coverage: the ordinary build stays.
coverage: $(INSTALLED) $(VENV)/.coverage ## lines of fastecho, branches of src_c; ARGS=--headers
	@exec env PYTHONPATH=tests $(BIN)/python tests/coverage/measure.py $(ARGS)

# Nothing is taken from the tree but what the sdist holds: unpacked, it makes its own .venv.
sdist: $(TOOLS) $(VENV)/.wheel ## build the sdist; build and test from it; ARGS chooses tests
	@rm -rf dist/*.tar.gz build/sdist && mkdir -p build/sdist
	$(BIN)/pyproject-build --quiet --sdist --outdir dist
	tar -xzf dist/fastecho-*.tar.gz -C build/sdist --strip-components=1
	@$(MAKE) --no-print-directory -C build/sdist test ARGS='$(or $(ARGS),$(SDIST_TESTS))'

# The platform tag that auditwheel gives is as old as the C library here allows. patchelf and
# the other tools are looked for in PATH. A free-threaded build has no stable ABI to audit.
wheel: sdist ## build the wheel from the sdist; echo through it on every Python here
	@rm -rf dist/*.whl build/wheel
	$(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir build/wheel dist/fastecho-*.tar.gz
	PATH="$(abspath $(BIN)):$$PATH" auditwheel repair --wheel-dir dist build/wheel/*.whl
	@case $$(echo dist/*.whl) in \
	*-abi3-*) echo "abi3audit --strict"; $(BIN)/abi3audit --strict --summary dist/*.whl ;; \
	esac
	$(BIN)/python tests/wheel/contents.py dist/*.whl
	$(BIN)/python tests/wheel/everywhere.py dist/*.whl

# zig brings the C libraries; qemu and Debian's packages, if they can be had, run the outcome.
cross: $(TOOLS) $(VENV)/.wheel $(VENV)/.cross ## wheels for aarch64 and musl, built and tried here
	@exec $(BIN)/python tests/wheel/cross.py $(ARGS)

clean: ## remove everything that was made, .venv too
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	rm -f fastecho/*.so
	find fastecho tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true

$(MADE):
	$(eval LACKS := $(shell .ci/missing '$(PYTHON)'))
	$(if $(LACKS),$(error $(LACKS)))
	@echo "making $(VENV) with $(PYTHON)"
	@rm -rf $(VENV)
	@$(PYTHON) -m venv $(VENV)
	@touch $@

# The first pip that understands dependency groups is 25.1.
$(TOOLS): $(MADE) pyproject.toml
	@echo "installing the build tools"
	@$(PIP) --upgrade 'pip>=25.1'
	@$(PIP) --group build
	@touch $@

# Metadata and the command. The extensions follow in the next step, which does not
# compile one that has not changed. "compat" is a plain line in a .pth file: from the folder
# that holds the checkout, Python would otherwise take the checkout itself for the package.
$(INSTALLED): $(TOOLS) pyproject.toml setup.py fastecho/_version.py
	@FASTECHO_NO_EXTENSION=1 $(PIP) --no-build-isolation --no-deps --editable . --config-settings editable_mode=compat
	@touch $@

$(COMPILED): $(INSTALLED) $(SOURCES)
	@echo "compiling the extensions"
	@$(BIN)/python setup.py --quiet build_ext --inplace
	@touch $@

GROUPS := $(patsubst %,$(VENV)/.%,test coverage lint docs bench wheel cross)
$(GROUPS): $(TOOLS) pyproject.toml
	@echo "installing what $(subst .,,$(@F)) needs"
	@$(PIP) --group $(subst .,,$(@F))
	@touch $@
