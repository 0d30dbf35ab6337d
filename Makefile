# U2Learn. `make` alone lists what there is. Everything is installed into .venv and built into _build, nothing elsewhere.
.DEFAULT_GOAL := help
.PHONY: help book test quick lab links format shots picture bench release grade mark backup table pins gpu clean

PYTHON ?=
CONSTRAINTS ?= constraints.txt
JOBS ?= 3
SUBMISSIONS ?=
ASSIGNMENT ?=
COURSE ?= course
EXERCISES ?=
MINUTES ?= 8

PY := .venv/bin/python
PYTEST = U2LEARN_BUDGET=smoke $(PY) -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder

# Many small processes with one thread each: on few cores torch's own threads are several times slower.
export OMP_NUM_THREADS := 1
export OMP_WAIT_POLICY := PASSIVE
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# Nothing of another Python; and what is compiled once is kept, as hundreds of processes start.
unexport PYTHONHOME PYTHONPATH PYTHONDONTWRITEBYTECODE

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' Makefile
	@echo
	@echo "  PYTHON=/path/to/python  which Python to use (3.10 or newer); the default is to look for one"
	@echo "  CONSTRAINTS=            install the newest versions instead of the tested ones (say, for another build of torch)"
	@echo "  JOBS=N                  how many tests run at once (default 3: on two cores, as some wait)"
	@echo "  COURSE=FOLDER           where the grades of a course are (default course); make clean leaves it alone"
	@echo "  WEIGHTS=FILE            the authors' U²-Net†, with which make bench also scores 8 bits on ECSSD"
	@echo "  MINUTES=N               how long make gpu may take (default 8)"

book: .venv/.ready ## execute the chapters and build the site, warnings are errors
	@$(PY) -m tools.book

test: .venv/.ready ## run everything that proves the project (lint, tests, chapters, site, browser)
	@echo "Running the chapters, then the tests and the site; this takes some minutes."
	@$(PY) -m tools.solutions
	@$(PYTEST) -p tools.validation --nbval-lax --nbval-current-env --nbval-cell-timeout 600 \
		_build/solved book/labs exercises --ignore=exercises/release; chapters=$$?; \
	$(PYTEST) -p no:nbval tests; tests=$$?; exit $$((chapters + tests > 0))

quick: .venv/.ready ## run what takes little time, before every commit (lint, tests without chapters and browser)
	@$(PYTEST) -p no:nbval -m "not (site or browser or course or slow)" tests

lab: .venv/.ready ## open the chapters in JupyterLab
	@$(PY) -m jupyterlab book/chapters

links: .venv/.ready ## write links, numbers of chapters and exercises, citations, install cells anew
	@$(PY) -m tools.links

format: .venv/.ready ## format code and notebooks as the tests want them
	@$(PY) -m tools.notebooks
	@$(PY) -m ruff check --fix .
	@$(PY) -m ruff format .

shots: book ## save screenshots of all pages, for a person to look at
	@$(PY) -m tools.browser

picture: .venv/.ready ## draw the picture of the README anew, from the weights that ship
	@$(PY) -m tools.picture

# Where PyTorch sees a GPU already, as on Colab, nothing is installed.
gpu: ## what only a GPU can show, in eight minutes: precision, speeds, a row trained; a second call goes on
	@if python3 -c 'import PIL, safetensors, torch, tqdm; assert torch.cuda.is_available()' 2>/dev/null; \
	then set -- python3; else $(MAKE) --no-print-directory .venv/.ready && set -- $(PY); fi && \
	"$$1" -m tools.gpu --minutes $(MINUTES)

bench: .venv/.ready ## measure what prediction, export and several processes cost, and write the records
	@for what in fast growth service scaling; do \
	  $(PY) -m benchmarks.$$what --record $$([ $$what = fast ] && echo "$(if $(WEIGHTS),--weights $(WEIGHTS))") || exit 1; \
	done

release: .venv/.ready ## write the assignments for students, and pack them; EXERCISES=folder for your own
	@$(PY) -m tools.assignments release $(if $(EXERCISES),--exercises "$(EXERCISES)")

grade: .venv/.ready ## grade a class: SUBMISSIONS=folder or zip file, and ASSIGNMENT=01-convolution for one alone
	@$(PY) -m tools.grading grade "$(SUBMISSIONS)" $(if $(ASSIGNMENT),--assignment $(ASSIGNMENT)) \
		$(if $(EXERCISES),--exercises "$(EXERCISES)") --course "$(COURSE)"

mark: .venv/.ready ## mark the answers in words, on a page of this computer
	@$(PY) -m tools.grading mark $(if $(EXERCISES),--exercises "$(EXERCISES)") --course "$(COURSE)"

backup: .venv/.ready ## copy the grades of the course
	@$(PY) -m tools.grading backup --course "$(COURSE)"

table: .venv/.ready ## write the instructor's table of mistakes anew
	@$(PY) -m tools.assignments table

pins: ## resolve constraints.txt anew (needs uv: pip install uv)
	@mkdir -p _build
	uv pip compile pyproject.toml --extra dev --universal --python-version 3.10 --no-annotate --no-header -q -o _build/pins.txt
	@grep '^#' constraints.txt > _build/constraints.txt
	@grep -Ev '^(nvidia|cuda)-|^triton=' _build/pins.txt >> _build/constraints.txt
	@mv _build/constraints.txt constraints.txt

clean: ## remove what was built; .venv stays, and course/ with the grades
	rm -rf _build .pytest_cache .ruff_cache

# The environment: made once, and again when what it is made from changes.
.venv/.ready: pyproject.toml $(CONSTRAINTS) $(wildcard u2learn/version.py)
	@if [ -n "$(PYTHON)" ]; then set -- "$(PYTHON)"; \
	else set -- python3 python3.13 python3.12 python3.11 python3.10 python; fi; \
	for python in "$$@"; do \
	  if "$$python" -c 'import sys, ensurepip, venv; sys.exit(sys.version_info < (3, 10))' 2>/dev/null; \
	  then found="$$python"; break; fi; \
	done; \
	if [ -z "$$found" ]; then \
	  echo "U2Learn needs Python 3.10 or newer with the module venv, and '$$*' is not that." >&2; \
	  echo "Install one (Debian, Ubuntu: apt install python3-venv), or name it: make PYTHON=/path/to/python3" >&2; \
	  exit 1; \
	fi; \
	echo "Setting up .venv with $$found: this takes some minutes and about 1.5 GB, once."; \
	$(PY) -c 'import pip' 2>/dev/null || "$$found" -m venv --clear .venv
	@$(PY) -m pip install $(if $(CONSTRAINTS),-c $(CONSTRAINTS)) -e '.[book,test]'
	@touch $@
