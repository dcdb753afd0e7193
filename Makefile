# Everything runs in a virtual environment of its own, made from the lock files.
VENV := .venv
PYTHON := $(VENV)/bin/python
RESTANTE := $(VENV)/bin/restante
INSTALL := $(VENV)/bin/pip install --quiet --disable-pip-version-check
COMPILE := $(VENV)/bin/pip-compile --quiet --generate-hashes --strip-extras --allow-unsafe --no-header --no-emit-index-url --no-emit-trusted-host --no-emit-find-links

.PHONY: run test interop check fix bench soak lock

run: $(VENV)/ready-to-run
	test -e config.yaml || $(RESTANTE) init --server-name localhost
	$(RESTANTE) run

test: $(VENV)/ready
	$(PYTHON) -m pytest --numprocesses 5 --dist worksteal --durations 20 -m "not interop and not soak"

interop: $(VENV)/ready
	$(PYTHON) -m pytest --numprocesses 2 --dist worksteal --durations 10 -m "interop and not soak"

check: $(VENV)/ready
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

fix: $(VENV)/ready
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

bench: $(VENV)/ready
	$(PYTHON) -m benchmarks

soak: $(VENV)/ready
	$(PYTHON) -m pytest -m soak

lock: $(VENV)/ready
	$(COMPILE) --build-deps-for editable --output-file requirements.lock pyproject.toml
	$(COMPILE) --build-deps-for editable --extra dev --constraint requirements.lock --output-file requirements-dev.lock pyproject.toml
	$(COMPILE) --output-file tests/clients/requirements.lock tests/clients/requirements.in
	$(COMPILE) --output-file tests/clients/synapse.lock tests/clients/synapse.in

$(VENV)/ready-to-run: requirements.lock
	python3 -m venv $(VENV)
	$(INSTALL) --require-hashes -r requirements.lock
	$(INSTALL) --no-deps --no-build-isolation --editable .
	touch $@

$(VENV)/ready: requirements-dev.lock
	python3 -m venv $(VENV)
	$(INSTALL) --require-hashes -r requirements-dev.lock
	$(INSTALL) --no-deps --no-build-isolation --editable .
	touch $@ $(VENV)/ready-to-run
