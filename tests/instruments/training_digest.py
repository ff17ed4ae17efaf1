"""Prints digests of views, gradients, losses and weights of a short training, to compare two versions of the package.

Run it with each version first on PYTHONPATH and compare the outputs; equal lines mean equal bits::

    for version in before after; do PYTHONPATH=$version python tests/instruments/training_digest.py > $version.txt; done
    diff before.txt after.txt
"""

import hashlib
import importlib
import sys
import tempfile
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import Runner

importlib.import_module("sspyr_mm")  # registers its components, as mmengine is imported

ITERATIONS = 20
VARIANTS = ("r50_coco_200e.py", "r50_coco_200e_official.py")
SMALL = {
    "model.backbone": dict(type="ResNet", depth=18, stem_channels=8, base_channels=8),
    "model.neck.in_channels": 64,
    "train_dataloader.batch_size": 4,
    "train_dataloader.num_workers": 0,
    "train_dataloader.persistent_workers": False,
    "default_hooks.logger.interval": 1,
}


def digest(tensors):
    found = hashlib.sha256()
    for tensor in tensors:
        found.update(tensor.detach().contiguous().numpy().tobytes())
    return found.hexdigest()[:16]


class Digests(Hook):
    def before_train_iter(self, runner, batch_idx, data_batch=None):
        inputs = data_batch["inputs"]
        groups = [inputs[name] for name in sorted(inputs) if torch.is_tensor(inputs[name])]
        print(f"{runner.iter:3} views   {digest(groups)}")

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        losses = "  ".join(f"{name} {float(value).hex()}" for name, value in outputs.items())
        print(f"{runner.iter:3} losses  {losses}")
        grads = [p.grad for p in runner.model.parameters() if p.grad is not None]
        print(f"{runner.iter:3} grads   {digest(grads)}")
        print(f"{runner.iter:3} state   {digest(runner.model.state_dict().values())}")
        if runner.iter + 1 == ITERATIONS:
            sys.stdout.flush()
            raise StopIteration


def main():
    torch.set_num_threads(1)
    toy_scenes = importlib.import_module("sspyr_mm.datasets.toy_scenes")
    root = Path(importlib.import_module("sspyr_mm").__file__).parents[1]
    with tempfile.TemporaryDirectory() as folder:
        toy_scenes.generate(folder, num_train=32, num_val=1, size=96)
        for name in VARIANTS:
            print(name)
            cfg = Config.fromfile(root / "configs" / "ssprl" / name)
            cfg.merge_from_dict(SMALL)
            cfg.train_dataloader.pop("prefetch_factor", None)  # needs workers
            cfg.optim_wrapper = dict(type="OptimWrapper", optimizer=cfg.optim_wrapper.optimizer)
            for scale in cfg.model.pyramid.values():
                scale.update(region=48 * scale.get("grid", 1), patch=32, num_prototypes=6)
                if scale.get("multi_crop"):
                    scale.multi_crop.update(num_views=2, patch=24)
                if scale.get("queue_length"):
                    scale.queue_length = 16
            cfg.train_dataloader.dataset.data_root = f"{folder}/train2017"
            cfg.train_cfg.max_epochs = 10
            cfg.work_dir = f"{folder}/work_{Path(name).stem}"
            cfg.randomness = dict(seed=3)
            cfg.custom_hooks = [*cfg.get("custom_hooks", []), dict(type=Digests, priority="LOWEST")]
            try:
                Runner.from_cfg(cfg).train()
            except StopIteration:
                continue


if __name__ == "__main__":
    main()
