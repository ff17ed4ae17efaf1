"""Samples memory, open files and shared memory of long training runs: ``python tests/instruments/long_run.py OUT``.

Trains a small network from files and from shards, with 0 and 4 workers, with one and two processes, and writes OUT.csv
and OUT.png: the proportional memory (PSS) and the open files of all processes of a run, and the bytes in ``/dev/shm``,
by iteration. Linux only.
"""

import csv
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import cv2
import matplotlib
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "helpers"))
from project import ROOT
from small_runs import CONFIG

matplotlib.use("Agg")
from matplotlib import pyplot as plt

ITERATIONS = 2000
NUM_IMAGES = 400
RUNS = [(source, workers, ranks) for source in ("files", "shards") for workers in (0, 4) for ranks in (1, 2)]
PARTS = {"memory": "PSS of all processes in MiB", "files": "open files", "shared": "/dev/shm in MiB"}


def processes(root):
    """The process ``root`` and its descendants."""
    parents = {}
    for path in Path("/proc").iterdir():
        if path.name.isdigit():
            try:
                parents[int(path.name)] = int((path / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue
    found, new = {root}, {root}
    while new:
        new = {pid for pid, parent in parents.items() if parent in new} - found
        found |= new
    return found


def sample(root):
    memory = files = 0
    for pid in processes(root):
        try:
            rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
            memory += int(re.search(r"^Pss: +(\d+)", rollup, re.MULTILINE)[1])
            files += len(os.listdir(f"/proc/{pid}/fd"))
        except (OSError, TypeError):
            continue
    shared = shutil.disk_usage("/dev/shm").used if Path("/dev/shm").is_dir() else 0
    return dict(memory=memory / 1024, files=files, shared=shared / 2**20)


def run(config, data, work, workers, ranks):
    """Rows of one run."""
    options = [f"train_dataloader.num_workers={workers}", f"train_dataloader.persistent_workers={workers > 0}"]
    options += [f"train_cfg.max_epochs={ITERATIONS * 4 * ranks // NUM_IMAGES}", "default_hooks.checkpoint.interval=5"]
    program = [sys.executable, "tools/train.py"] if ranks == 1 else ["bash", "tools/dist_train.sh"]
    command = [*program, str(config), *([str(ranks)] if ranks > 1 else []), "--data-root", str(data)]
    command += ["--work-dir", str(work), "--cfg-options", *options, "default_hooks.checkpoint.max_keep_ckpts=1"]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1", "PYTHON": sys.executable}
    rows = []
    with open(work.with_suffix(".log"), "w+") as log:
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=subprocess.STDOUT)
        while process.poll() is None:
            time.sleep(2)
            lines = re.findall(r"Epoch\(train\) +\[(\d+)\]\[ *(\d+)/(\d+)\]", Path(log.name).read_text())
            if lines:
                epoch, done, length = map(int, lines[-1])
                rows.append(dict(iteration=(epoch - 1) * length + done, **sample(process.pid)))
        assert process.returncode == 0, Path(log.name).read_text()[-3000:]
    return rows


def main():
    out = Path(sys.argv[1])
    figure, axes = plt.subplots(1, len(PARTS), figsize=(12, 3.6), layout="constrained")
    found = []
    with tempfile.TemporaryDirectory() as folder:
        images = Path(folder, "images")
        images.mkdir()
        rng = np.random.default_rng(0)
        for index in range(NUM_IMAGES):
            coarse = rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)
            cv2.imwrite(str(images / f"{index}.jpg"), cv2.resize(coarse, (80, 60)))
        shards = Path(folder, "shards")
        subprocess.run([sys.executable, "-m", "sspyr_mm", "pack", str(images), str(shards)], check=True, cwd=ROOT)
        config = Path(folder, "config.py")
        config.write_text(
            CONFIG.format(root=ROOT, data=images, batch=4).replace(
                "logger=dict(interval=1)", "logger=dict(interval=20)"
            )
        )
        for source, workers, ranks in RUNS:
            name = f"{source}, {workers} workers, {ranks} process{'es' * (ranks > 1)}"
            rows = run(
                config, images if source == "files" else shards, Path(folder, f"run{len(found)}"), workers, ranks
            )
            found += [dict(run=name, **row) for row in rows]
            for axis, part in zip(axes, PARTS, strict=True):
                axis.plot([row["iteration"] for row in rows], [row[part] for row in rows], label=name, linewidth=1)
            half = [row for row in rows if row["iteration"] > ITERATIONS / 2]
            quarter = [row for row in rows if ITERATIONS / 4 < row["iteration"] <= ITERATIONS / 2]
            means = {part: [np.mean([row[part] for row in some]) for some in (quarter, half)] for part in PARTS}
            print(name, {part: [round(float(x), 1) for x in pair] for part, pair in means.items()}, flush=True)
    for axis, title in zip(axes, PARTS.values(), strict=True):
        axis.set(xlabel="iteration", title=title, ylim=(0, None))
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize=8)
    figure.savefig(out.with_suffix(".png"), dpi=100)
    with open(out.with_suffix(".csv"), "w", newline="") as file:
        writer = csv.DictWriter(file, ["run", "iteration", *PARTS])
        writer.writeheader()
        writer.writerows({key: round(v, 1) if isinstance(v, float) else v for key, v in row.items()} for row in found)


if __name__ == "__main__":
    main()
