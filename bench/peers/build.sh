#!/bin/sh
# Make bench/peers/.venv, where the peers live: `sh bench/peers/build.sh`. The project's own .venv is never touched.
# On Linux, PyPI's torch carries gigabytes of CUDA; name the CPU index as for `make setup`:
#   TORCH_INDEX="--extra-index-url https://download.pytorch.org/whl/cpu" sh bench/peers/build.sh
set -eu
cd "$(dirname "$0")"
test -x .venv/bin/python || "${PYTHON:-python3}" -m venv .venv
# shellcheck disable=SC2086 - TORCH_INDEX holds several words
.venv/bin/python -m pip install --quiet --disable-pip-version-check ${TORCH_INDEX:-} -r requirements.txt
# It asks for nnsight, which asks for an older transformers: without what it asks for, and `nnsight.py` here in its place.
.venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps -r requirements-no-deps.txt
HF_HUB_OFFLINE=1 .venv/bin/python -c 'import sae_lens, sparsify; print("sae-lens", sae_lens.__version__, "sparsify", sparsify.__version__)'
