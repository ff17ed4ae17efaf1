# Config of tools/quickstart.sh: the CPU-size network on generated scenes, a few minutes on two cores.
# No published counterpart. All numbers are a choice.
# Command: bash tools/quickstart.sh
_base_ = "./r18_toy_scenes_40e.py"

train_dataloader = dict(
    num_workers=2,
    pin_memory=False,
    dataset=dict(data_root="work_dirs/quickstart/toy_scenes/data/train2017"),
)
train_cfg = dict(max_epochs=26)
default_hooks = dict(
    logger=dict(interval=10),
    progress=dict(type="ProgressBarHook"),
    checkpoint=dict(interval=5, max_keep_ckpts=2, save_last=True),
)
log_level = "WARNING"
