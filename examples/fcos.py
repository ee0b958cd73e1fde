"""PolarHead on the backbone of torchvision's FCOS."""

import torch
from torchvision.models.detection import fcos_resnet50_fpn

from polarmask import PolarHead, PolarMask
from polarmask_ops import outlines_from_polygons

fcos = fcos_resnet50_fpn(weights=None, weights_backbone=None)  # weights="DEFAULT": COCO's
model = PolarMask(fcos.backbone, PolarHead(num_classes=3, in_channels=fcos.backbone.out_channels))

image, outlines = torch.rand(3, 128, 128), outlines_from_polygons([[[20, 15, 100, 30, 75, 110]]])
target = {"boxes": outlines.boxes(), "labels": torch.tensor([2]), "outlines": outlines}
losses = model.train()([image], [target])
sum(losses.values()).backward()
print({name: round(loss.item(), 3) for name, loss in losses.items()})
(found,) = model.eval()([image])
print(len(found["scores"]), "instances of", found["rays"].shape[1], "rays")
