"""The released network, slow and obvious: its parameters' names and shapes, and what it computes from them.

Source: mmdetection 1.0 and its PolarMask fork.
"""

import torch
import torch.nn.functional as F
from torchvision.ops import deform_conv2d

BLOCKS = {"resnet50": (3, 4, 6, 3), "resnet101": (3, 4, 23, 3), "resnext101_64x4d": (3, 4, 23, 3)}
TOWERS = ("cls", "reg", "mask")
RAYS = 36


def shapes(backbone, dcn, classes, old_names=False):
    """Names and shapes of a checkpoint."""
    found = {}

    def conv(name, outside, inside, side, bias=False):
        found[f"{name}.weight"] = (outside, inside, side, side)
        if bias:
            found[f"{name}.bias"] = (outside,)

    def norm(name, width):
        for field in ("weight", "bias", "running_mean", "running_var"):
            found[f"{name}.{field}"] = (width,)
        found[f"{name}.num_batches_tracked"] = ()

    conv("backbone.conv1", 64, 3, 7)
    norm("backbone.bn1", 64)
    groups = 64 if backbone.startswith("resnext") else 1
    inside = 64
    for stage, count in enumerate(BLOCKS[backbone]):
        outside = 256 * 2**stage
        width = outside if groups > 1 else outside // 4
        for block in range(count):
            at = f"backbone.layer{stage + 1}.{block}"
            conv(f"{at}.conv1", width, inside, 1)
            conv(f"{at}.conv2", width, width // groups, 3)
            conv(f"{at}.conv3", outside, width, 1)
            for n, wide in ((1, width), (2, width), (3, outside)):
                norm(f"{at}.bn{n}", wide)
            if dcn and stage:
                conv(f"{at}.conv2_offset" if old_names else f"{at}.conv2.conv_offset", 18, width, 3, bias=True)
            if not block:
                conv(f"{at}.downsample.0", outside, inside, 1)
                norm(f"{at}.downsample.1", outside)
            inside = outside
    for n, wide in enumerate((512, 1024, 2048)):
        conv(f"neck.lateral_convs.{n}.conv", 256, wide, 1, bias=True)
    for n in range(5):
        conv(f"neck.fpn_convs.{n}.conv", 256, 256, 3, bias=True)
    for tower in TOWERS:
        for n in range(4):
            at = f"bbox_head.{tower}_convs"
            if dcn:
                conv(f"{at}.{3 * n}", 256, 256, 3, bias=True)
                conv(f"{at}.{3 * n}.conv_offset{'_mask' if old_names else ''}", 27, 256, 3, bias=True)
                gn = f"{at}.{3 * n + 1}"
            else:
                conv(f"{at}.{n}.conv", 256, 256, 3)
                gn = f"{at}.{n}.gn"
            found[f"{gn}.weight"] = found[f"{gn}.bias"] = (256,)
    start = "bbox_head.fcos" if old_names else "bbox_head.polar"
    for name, outside in (("cls", classes), ("reg", 4), ("mask", RAYS), ("centerness", 1)):
        conv(f"{start}_{name}", outside, 256, 3, bias=True)
    for level in range(5):
        found[f"bbox_head.scales_bbox.{level}.scale"] = found[f"bbox_head.scales_mask.{level}.scale"] = ()
    return found


def checkpoint(backbone="resnet50", dcn=False, classes=80, old_names=False):
    """Random weights that neither die out nor explode on the way."""
    generator = torch.Generator().manual_seed(0)
    state = {}
    for name, shape in shapes(backbone, dcn, classes, old_names).items():
        if name.endswith("num_batches_tracked"):
            state[name] = torch.tensor(7)
        elif len(shape) == 4:
            # Offsets of about half a pixel; distances of about one.
            gain = 0.5 if "offset" in name else 1.0 if "bbox_head.polar" in name or "bbox_head.fcos" in name else 1.4
            fan = shape[1] * shape[2] * shape[3]
            state[name] = torch.randn(shape, generator=generator) * gain / fan**0.5
        else:
            near_one = name.endswith(("running_var", "scale", "n1.weight", "n2.weight", "gn.weight", "1.weight"))
            values = 0.2 * torch.rand(shape, generator=generator)
            state[name] = values + (0.8 if near_one else 0)
    return state


class Released:
    """What the release computes."""

    def __init__(self, state, style):
        self.state, self.style = state, style

    def __call__(self, image):
        """(1, 3, H, W), as the weights want it, to (class, box, centerness, rays) of each level."""
        x = F.relu(self.norm("backbone.bn1", self.conv("backbone.conv1", image, 2, 3)))
        x = F.max_pool2d(x, 3, 2, 1)
        maps = []
        for stage in range(1, 5):
            block = 0
            while f"backbone.layer{stage}.{block}.conv1.weight" in self.state:
                x = self.block(f"backbone.layer{stage}.{block}", x, 2 if stage > 1 and not block else 1)
                block += 1
            maps.append(x)
        return [self.head(level, x) for level, x in enumerate(self.neck(maps[1:]))]

    def get(self, name):
        return self.state.get(name)

    def conv(self, name, x, stride=1, padding=1):
        return F.conv2d(
            x, self.state[f"{name}.weight"], self.get(f"{name}.bias"), stride, padding, groups=self.groups(name, x)
        )

    def groups(self, name, x):
        return x.shape[1] // self.state[f"{name}.weight"].shape[1]

    def norm(self, name, x):
        mean, var, weight, bias = (
            self.state[f"{name}.{field}"] for field in ("running_mean", "running_var", "weight", "bias")
        )
        return F.batch_norm(x, mean, var, weight, bias)

    def block(self, at, x, stride):
        first, second = (stride, 1) if self.style == "caffe" else (1, stride)
        y = F.relu(self.norm(f"{at}.bn1", self.conv(f"{at}.conv1", x, first, 0)))
        for offset in (f"{at}.conv2_offset", f"{at}.conv2.conv_offset"):
            if f"{offset}.weight" in self.state:
                y = deform_conv2d(y, self.conv(offset, y, second), self.state[f"{at}.conv2.weight"], None, second, 1)
                break
        else:
            y = self.conv(f"{at}.conv2", y, second)
        y = self.norm(f"{at}.bn3", self.conv(f"{at}.conv3", F.relu(self.norm(f"{at}.bn2", y)), 1, 0))
        if f"{at}.downsample.0.weight" in self.state:
            x = self.norm(f"{at}.downsample.1", self.conv(f"{at}.downsample.0", x, stride, 0))
        return F.relu(x + y)

    def neck(self, maps):
        lateral = [self.conv(f"neck.lateral_convs.{n}.conv", x, 1, 0) for n, x in enumerate(maps)]
        for n in (1, 0):
            lateral[n] = lateral[n] + F.interpolate(lateral[n + 1], scale_factor=2)
        levels = [self.conv(f"neck.fpn_convs.{n}.conv", x) for n, x in enumerate(lateral)]
        levels.append(self.conv("neck.fpn_convs.3.conv", levels[-1], 2))
        levels.append(self.conv("neck.fpn_convs.4.conv", F.relu(levels[-1]), 2))
        return levels

    def head(self, level, x):
        of_class, of_box, of_mask = (self.tower(f"bbox_head.{tower}_convs", x) for tower in TOWERS)
        start = "bbox_head.fcos" if "bbox_head.fcos_cls.weight" in self.state else "bbox_head.polar"
        box_scale, mask_scale = (self.state[f"bbox_head.scales_{kind}.{level}.scale"] for kind in ("bbox", "mask"))
        return (
            self.conv(f"{start}_cls", of_class),
            (box_scale * self.conv(f"{start}_reg", of_box)).exp(),
            self.conv(f"{start}_centerness", of_class),
            (mask_scale * self.conv(f"{start}_mask", of_mask)).exp(),
        )

    def tower(self, at, x):
        for n in range(4):
            if f"{at}.{n}.conv.weight" in self.state:
                x, gn = self.conv(f"{at}.{n}.conv", x), f"{at}.{n}.gn"
            else:
                conv, gn = f"{at}.{3 * n}", f"{at}.{3 * n + 1}"
                offset = f"{conv}.conv_offset"
                y, x_mask, mask = self.conv(offset if f"{offset}.weight" in self.state else f"{offset}_mask", x).chunk(
                    3, 1
                )
                x = deform_conv2d(
                    x,
                    torch.cat([y, x_mask], 1),
                    self.state[f"{conv}.weight"],
                    self.state[f"{conv}.bias"],
                    padding=1,
                    mask=mask.sigmoid(),
                )
            x = F.relu(F.group_norm(x, 32, self.state[f"{gn}.weight"], self.state[f"{gn}.bias"]))
        return x
