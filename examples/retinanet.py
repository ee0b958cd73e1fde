"""torchvision's RetinaNet with PolarHead for its head: its transform and backbone stay."""

import torch
from torchvision.models.detection import RetinaNet, retinanet_resnet50_fpn_v2

from polarmask.model import PolarHead, PostProcess, polar_losses
from polarmask_ops import encode_targets, outlines_from_polygons


class PolarRetinaNet(RetinaNet):
    def forward(self, images, targets=None):
        batch, targets = self.transform(images, targets)  # keeps the size of images whose shorter side is min_size
        output = self.head(list(self.backbone(batch.tensors).values()))
        if not self.training:
            return PostProcess()(output, self.head.points(output.level_shapes, batch.tensors.device), batch.image_sizes)
        return polar_losses(output, encode_targets(output.level_shapes, self.head.strides, targets))


backbone = retinanet_resnet50_fpn_v2(weights=None, weights_backbone=None).backbone
model = PolarRetinaNet(backbone, 3, head=PolarHead(3, in_channels=backbone.out_channels), min_size=128)
image, outlines = torch.rand(3, 128, 160), outlines_from_polygons([[[20, 15, 100, 30, 75, 110]]])
losses = model.train()([image], [{"boxes": outlines.boxes(), "labels": torch.tensor([2]), "outlines": outlines}])
sum(losses.values()).backward()
print({name: round(loss.item(), 3) for name, loss in losses.items()}, len(model.eval()([image])[0]["scores"]))
