"""Write datasets/digits.npz from scikit-learn's copy of the UCI handwritten digits.

python tools/make_digits.py
"""

from __future__ import annotations

from pathlib import Path

TARGET = Path(__file__).resolve().parent.parent / "datasets" / "digits.npz"


def main() -> None:
    """Write the file."""
    import numpy
    from sklearn.datasets import load_digits

    digits = load_digits()
    numpy.savez_compressed(TARGET, images=digits.images.astype(numpy.uint8), labels=digits.target.astype(numpy.uint8))
    print(f"{TARGET}: {len(digits.target)} images, {TARGET.stat().st_size} bytes")


if __name__ == "__main__":
    main()
