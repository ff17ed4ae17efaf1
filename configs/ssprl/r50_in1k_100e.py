# SS-PRL, ResNet-50 on ImageNet-1k without labels; paper, section B and table S-B (ImageNet).
# Command: tools/dist_train.sh configs/ssprl/r50_in1k_100e.py 8      (8 x 32 images)
# Published: COCO ASL 73.8 mAP. Not reproduced here. The numbers are the paper's; 8 GPUs are a choice.
_base_ = "./r50_coco_200e.py"

train_dataloader = dict(batch_size=32, dataset=dict(data_root="data/imagenet/train"))
train_cfg = dict(max_epochs=100)
auto_scale_lr = dict(base_batch_size=256)  # the paper gives one learning rate for both batch sizes
