# SS-PRL at CPU size on generated scenes (python -m sspyr_mm toy-scenes), whose colours are unrelated to their content.
# No published counterpart. All numbers are a choice.
# Command: python tools/train.py configs/ssprl/r18_toy_scenes_40e.py --data-root SCENES/train2017
# Cost: about 25 s an epoch of 4 000 scenes on one core.
_base_ = "./r18_small_50e.py"

model = dict(
    head=dict(assigner=dict(epsilon=0.005)),
    # All patches of a scene share its hues. Without strong jitter the network learns the hues instead of the objects.
    data_preprocessor=dict(jitter=(0.6, 0.6, 0.8, 0.5), jitter_prob=1.0, blur_sigma=(0.1, 0.6)),
)
train_cfg = dict(max_epochs=40)
