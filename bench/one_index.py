"""One index of made-up codes, in a process of its own: `python -m bench.one_index HARVEST INDEX D_SAE`."""

import json
import sys
import time
from pathlib import Path

from autointerp.index.config import IndexConfig
from autointerp.index.given import index_codes
from bench import made_up
from bench.one_harvest import peak_gb
from store.feature_index import TEXT_FOLDER
from store.token_map import TokenMap, write_token_map


def main(harvest: Path, index: Path, d_sae: int) -> None:
    """One index, and a line of JSON that says what it took."""
    write_token_map(index / TEXT_FOLDER, harvest)
    windows = made_up.codes(TokenMap(index / TEXT_FOLDER), d_sae)
    before, started = peak_gb(), time.perf_counter()
    results = index_codes(index, harvest, windows, d_sae, made_up.WORDS, IndexConfig())
    spent = time.perf_counter() - started
    print(json.dumps({"peak_gb": peak_gb(), "before_gb": before, "seconds": spent, **results}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
