"""Options that make a shipped pre-training recipe train in seconds."""

SMALL_BACKBONE = {
    "model.backbone.depth": 18,
    "model.backbone.stem_channels": 8,
    "model.backbone.base_channels": 8,
    "model.neck.in_channels": 64,
    "model.neck.hid_channels": 32,
}


def small_run(photographs, work_dir):
    """Options of one epoch of two iterations on eight photographs, without worker processes."""
    return {
        "work_dir": str(work_dir),
        "train_dataloader.batch_size": 4,
        "train_dataloader.num_workers": 0,
        "train_dataloader.persistent_workers": False,
        "train_dataloader.dataset.data_root": str(photographs),
        "train_cfg.max_epochs": 1,
        "default_hooks.logger.interval": 1,
    }
