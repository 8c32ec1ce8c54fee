"""How well the models in models/ do their task, against doing nothing (the table of their README).

python bench/bench_models.py [FOLDER of photographs]
"""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import onnxruntime as ort

ROOT = Path(__file__).resolve().parent.parent
BORDER_PX = 8
SIGMA = 25.0
Picture = npt.NDArray[np.uint8]


def psnr_db(truth: Picture, guess: Picture) -> float:
    difference = truth.astype(np.float64) - guess
    inner = difference[BORDER_PX:-BORDER_PX, BORDER_PX:-BORDER_PX]
    return float(10 * np.log10(255**2 / np.mean(inner**2)))


def run(session: ort.InferenceSession, picture: Picture) -> Picture:
    planes = picture.transpose(2, 0, 1)[None].astype(np.float32) / np.float32(255)
    output = session.run(None, {"input": planes})[0][0].transpose(1, 2, 0)
    return np.rint(np.clip(output, 0, 1) * 255).astype(np.uint8)


def main() -> None:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "tests/data/photos/eval"
    enlarge = ort.InferenceSession(ROOT / "models/espcn_x2.onnx")
    denoise = ort.InferenceSession(ROOT / "models/denoise_small.onnx")
    rows = []
    for seed, path in enumerate(sorted(folder.glob("*.jpg"))):
        photo = cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)
        height, width = photo.shape[0] // 2 * 2, photo.shape[1] // 2 * 2
        photo = np.ascontiguousarray(photo[:height, :width])
        small = cv2.resize(photo, (width // 2, height // 2), interpolation=cv2.INTER_AREA)
        bicubic = cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)
        noise = np.random.default_rng(seed).normal(0, SIGMA, photo.shape)
        noisy = np.clip(np.rint(photo + noise), 0, 255).astype(np.uint8)
        rows.append(
            [
                psnr_db(photo, run(enlarge, small)),
                psnr_db(photo, bicubic),
                psnr_db(photo, run(denoise, noisy)),
                psnr_db(photo, noisy),
            ]
        )
    db = np.array(rows)
    mean = db.mean(axis=0)
    for name, column in (("espcn_x2", 0), ("denoise_small", 2)):
        wins = int((db[:, column] > db[:, column + 1]).sum())
        print(
            f"{name:14} model {mean[column]:.2f} dB, nothing {mean[column + 1]:.2f} dB, "
            f"better on {wins} of {len(db)}"
        )


if __name__ == "__main__":
    main()
