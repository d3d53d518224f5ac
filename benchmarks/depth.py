"""Accuracy against depth, bare and wrapped (Casarin et al., CVPR 2024, Fig. 5), from the results of comparisons:

    image2video demo --model cifar_resnet8 --out runs/depth-8
    image2video demo --model cifar_resnet18 --out runs/depth-18
    python benchmarks/depth.py runs/depth-8/result.json runs/depth-18/result.json --arms bare searched --out depth

Writes depth.png and depth.svg.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from image2video.report import ComparisonResult, depth_figure, save_figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path, nargs="+", help="result.json of one comparison per depth, of equal data")
    parser.add_argument("--arms", nargs="*", default=None, help="names of arms (default: all that every result has)")
    parser.add_argument("--out", type=Path, default=Path("depth"), help="the figure, without its suffix")
    given = parser.parse_args()
    drawn = depth_figure([ComparisonResult.load(path) for path in given.results], given.arms)
    for path in save_figure(drawn, given.out):
        print(path)


if __name__ == "__main__":
    main()
