"""Write the three real data sets as scikit-learn ships them to configs/data/*.csv, ready for a spec.

    python examples/write_data.py            # needs scikit-learn; the CSV files are part of the repository

Every input column is standardised (mean 0, variance 1), so that one unit means the same in each and the
constants of the theory stay moderate, and a constant column `one` makes room for a bias: a linear predictor
of (x, 1) is an affine predictor of x.  Numbers are written so that they read back to the same bits.

    diabetes.csv        442 patients, 10 measurements; `progression` one year on, standardised too
                        (Efron, Hastie, Johnstone, Tibshirani, "Least Angle Regression", 2004)
    breast-cancer.csv   569 tumours, 30 measurements; `benign` is 1 or −1, as the logistic loss wants it
                        (Wolberg, Street, Mangasarian, "Breast Cancer Wisconsin (Diagnostic)", 1995)
    wine.csv            178 wines, 13 measurements; `cultivar` is 0, 1 or 2, a class for the softmax loss
                        (Aeberhard, Coomans, de Vel, "Comparative analysis of statistical pattern recognition
                        methods in high dimensional settings", 1994)
"""

from __future__ import annotations

import csv
from collections.abc import Iterable
from pathlib import Path

import numpy as np

DATA = Path(__file__).resolve().parent.parent / "configs" / "data"


def standardised(column: np.ndarray) -> np.ndarray:
    """(column − mean) / standard deviation."""
    return (column - column.mean(axis=0)) / column.std(axis=0)


def write_csv(path: Path, names: Iterable[str], inputs: np.ndarray, target: str, y: np.ndarray) -> None:
    """A header and one row for each sample: the inputs (n, d), the constant 1, the target (n,)."""
    table = np.column_stack([inputs, np.ones(len(y)), y])
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([*names, "one", target])
        writer.writerows([[repr(float(number)) for number in row] for row in table])


def main() -> None:
    from sklearn.datasets import load_breast_cancer, load_diabetes, load_wine

    DATA.mkdir(parents=True, exist_ok=True)
    diabetes = load_diabetes(scaled=False)
    write_csv(
        DATA / "diabetes.csv",
        diabetes.feature_names,
        standardised(diabetes.data),
        "progression",
        standardised(diabetes.target),
    )
    tumours = load_breast_cancer()
    write_csv(
        DATA / "breast-cancer.csv",
        tumours.feature_names,
        standardised(tumours.data),
        "benign",
        2.0 * tumours.target - 1.0,
    )
    wines = load_wine()
    write_csv(DATA / "wine.csv", wines.feature_names, standardised(wines.data), "cultivar", wines.target)


if __name__ == "__main__":
    main()
