# Fine-tuning of the whole network on 10 % of COCO train2014; paper, semi-supervised learning.
# Command: python tools/train.py configs/benchmarks/classification/semi_coco14_10pct_20e.py \
#              --cfg-options model.backbone.init_cfg.checkpoint=backbone.pth
# splits/ holds the images; the authors' lists were not published.
_base_ = "./semi_coco14_100pct_20e.py"

train_dataloader = dict(dataset=dict(image_ids="{{ fileDirname }}/splits/coco2014_10pct_seed0.txt"))
