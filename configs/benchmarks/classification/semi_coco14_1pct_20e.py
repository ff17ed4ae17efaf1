# Fine-tuning of the whole network on 1 % of COCO train2014; paper, semi-supervised learning.
# Command: python tools/train.py configs/benchmarks/classification/semi_coco14_1pct_20e.py \
#              --cfg-options model.backbone.init_cfg.checkpoint=backbone.pth
# splits/ holds the images; the authors' lists were not published.
_base_ = "./semi_coco14_100pct_20e.py"

train_dataloader = dict(batch_size=32, dataset=dict(image_ids="{{ fileDirname }}/splits/coco2014_1pct_seed0.txt"))
