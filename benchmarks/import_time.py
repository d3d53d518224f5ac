"""Time of `import image2video` over `import torch`, each in a fresh interpreter; target: under 100 ms.

python benchmarks/import_time.py --repeats 7 --out benchmarks/results/import_time.json
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
from pathlib import Path

from harness import write_result

CODE = """
import time
import torch
start = time.perf_counter()
import image2video
print(time.perf_counter() - start)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    seconds = [
        float(subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True).stdout)
        for _ in range(options.repeats)
    ]
    result = {"median_ms": 1e3 * statistics.median(seconds), "all_ms": [1e3 * s for s in seconds], "target_ms": 100.0}
    print(f"import image2video after import torch: {result['median_ms']:.1f} ms (target: under 100 ms)")
    if options.out:
        write_result(options.out, "import_time", {"settings": {"repeats": options.repeats}, "results": [result]})


if __name__ == "__main__":
    main()
