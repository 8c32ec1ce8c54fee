"""Runs grafted models under several versions of onnxruntime, each in a new virtual environment.

python tools/ort_versions.py 1.17.0 1.20.1 1.24.4 ...   (minutes; downloads each version)

Prints a line for each version: whether the plain body and the native operator give the contract's
bytes of what the model gives there. Exits with 1 if one of them does not.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RUNNERS = ("body", "library")


def make_cases(folder: Path) -> Path:
    """Write grafted models that keep their unmarked output, and inputs. Returns the mark file."""
    import numpy as np
    import onnx

    from birthmark import _core, extractor
    from birthmark.graft import graft
    from birthmark.mark import Mark

    rng = np.random.default_rng(0)
    gains = rng.integers(-900, 900, (_core.GAIN_ROWS, _core.TONES)).astype(np.int16)
    mark = Mark(_core.write_mark(bytes(16), gains))
    mark.save(folder / "m.mark")

    def case(name: str, model: bytes, height: int, width: int) -> None:
        (folder / f"{name}.onnx").write_bytes(graft(model, mark, keep=True))
        np.save(folder / f"{name}.npy", rng.random((1, 3, height, width), np.float32))

    for path in sorted((ROOT / "models").glob("*.onnx")):
        if path.name != extractor.FILE:  # makes no pictures
            case(path.stem, path.read_bytes(), 64, 94)
    for kind in ("FLOAT", "FLOAT16"):
        element = getattr(onnx.TensorProto, kind)
        graph = onnx.helper.make_graph(
            [onnx.helper.make_node("Cast", ["x"], ["y"], to=element)],
            "g",
            [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["n", 3, "h", "w"])],
            [onnx.helper.make_tensor_value_info("y", element, ["n", 3, "h", "w"])],
        )
        opset = [onnx.helper.make_opsetid("", 13)]
        model = onnx.helper.make_model(graph, opset_imports=opset, ir_version=7)
        for height, width in ((1, 1), (37, 39)):
            case(f"{kind.lower()}_{height}", model.SerializeToString(), height, width)
    return folder / "m.mark"


def run_cases(folder: Path, library: str) -> None:
    """In the other environment, which has numpy and onnxruntime only: keep all outputs."""
    import numpy as np
    import onnxruntime

    for path in sorted(folder.glob("*.onnx")):
        x = np.load(path.with_suffix(".npy"))
        for runner in RUNNERS:
            options = onnxruntime.SessionOptions()
            options.log_severity_level = 4
            options.enable_profiling = True
            options.profile_file_prefix = str(folder / "profile")
            if runner == "library":
                options.register_custom_ops_library(library)
            session = onnxruntime.InferenceSession(
                str(path), options, providers=["CPUExecutionProvider"]
            )
            published, plain = session.run(None, {session.get_inputs()[0].name: x})
            events = json.loads(Path(session.end_profiling()).read_text())
            called = any(event.get("args", {}).get("op_name") == "Embed" for event in events)
            result = folder / f"{path.stem}.{runner}.npz"
            np.savez(result, published=published, plain=plain, called=called)


def judge(folder: Path, mark: Path) -> tuple[str, bool]:
    """What an environment's results are worth: a line, and whether all is as it should be."""
    import numpy as np

    from birthmark.embed import Embedder

    embedder = Embedder(mark)
    words, good = [], True
    for runner in RUNNERS:
        results = [np.load(path) for path in sorted(folder.glob(f"*.{runner}.npz"))]
        equal = sum(
            np.array_equal(r["published"][0], embedder.embed(r["plain"].astype(np.float32)))
            for r in results
        )
        called = sum(bool(r["called"]) for r in results)
        good &= equal == len(results) > 0 and called == len(results) * (runner == "library")
        words.append(f"{runner} {equal}/{len(results)} equal ({called} by our kernels)")
    return ", ".join(words), good


def main() -> int:
    """Make the cases here, run them there, judge here."""
    if sys.argv[1:2] == ["--run"]:
        run_cases(Path(sys.argv[2]), sys.argv[3])
        return 0
    from birthmark.graft import library_path

    all_good = True
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        mark = make_cases(folder)
        for version in sys.argv[1:]:
            for old in folder.glob("*.npz"):
                old.unlink()
            environment = folder / f"venv-{version}"
            subprocess.run([sys.executable, "-m", "venv", environment], check=True)
            python = str(environment / "bin" / "python")
            # onnxruntime before 1.19 was built for numpy 1.
            numpy = "numpy<2" if tuple(map(int, version.split(".")[:2])) < (1, 19) else "numpy"
            wanted = [f"onnxruntime=={version}", numpy]
            subprocess.run([python, "-m", "pip", "install", "-qq", *wanted], check=True)
            done = subprocess.run(
                [python, __file__, "--run", name, library_path()],
                capture_output=True,
                text=True,
                check=False,
            )
            line, good = judge(folder, mark)
            if done.returncode:
                line, good = f"{line}; {done.stderr.strip().splitlines()[-1]}", False
            all_good &= good
            print(f"onnxruntime {version}: {line}", flush=True)
    return 0 if all_good else 1


if __name__ == "__main__":
    sys.exit(main())
