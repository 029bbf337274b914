"""Residual blocks of image and clip networks.

K. He, X. Zhang, S. Ren, J. Sun: "Deep Residual Learning for Image Recognition", CVPR 2016
(arXiv 1512.03385): the two blocks.
S. Xie et al.: "Aggregated Residual Transformations for Deep Neural Networks", CVPR 2017
(arXiv 1611.05431): groups.
"""

from dataclasses import replace

from torch import Tensor, nn
from torch.nn import functional as F

from nlden.encoders.convolutions import Time, convolution, factored_width, norm
from nlden.encoders.unet import Slot


class Residual(nn.Module):
    """``after(relu(shortcut(x) + attention(branch(x))))``: what the two blocks have in common.

    The shortcut is the identity where nothing changes and a convolution with a norm elsewhere.

    Shape:
        ``(B, inputs, H, W)`` or ``(B, inputs, T, H, W)`` to ``channels`` maps, the size divided by
        the strides and rounded up.
    """

    def __init__(
        self,
        inputs: int,
        channels: int,
        *,
        stride: int,
        dilation: int,
        shortcut_kernel: int,
        attention: Slot | None,
        after: Slot | None,
        time: Time | None,
    ) -> None:
        super().__init__()
        self.channels = channels
        in_time = 1 if time is None else time.stride
        self.shortcut: nn.Module | None = None
        if inputs != channels or stride > 1 or in_time > 1:
            frames = None if time is None else time.without_extent(stride=in_time)
            self.shortcut = nn.Sequential(
                convolution(
                    inputs,
                    channels,
                    shortcut_kernel,
                    stride=stride,
                    dilation=dilation,
                    time=frames,
                ),
                norm(channels, time),
            )
        self.attention = None if attention is None else attention(channels)
        self.after = None if after is None else after(channels)

    def branch(self, x: Tensor) -> Tensor:
        """Return the residual before attention."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        """Return the refined features."""
        y = self.branch(x)
        if self.attention is not None:
            y = self.attention(y)
        y = F.relu(y + (x if self.shortcut is None else self.shortcut(x)))
        return y if self.after is None else self.after(y)


class BasicBlock(Residual):
    """Two 3x3 convolutions (He et al., figure 5 left).

    Args:
        inputs: channels that enter.
        planes: channels of the convolutions and of the result.
        stride: spatial stride, in the first convolution.
        dilations: dilation of the two convolutions.
        shortcut_kernel: extent of the shortcut's convolution (He et al.: 1).
        attention: slot on the branch, before the sum.
        after: slot after the sum and its ReLU.
        time: None for images, else the block's own (:meth:`Time.of_block`).
        relu_before_attention: pass the branch through a ReLU before its attention, as the
            SE-ResNet-18 and 34 of Cadene and timm's ``legacy_seresnet18`` do (paper: no).

    Raises:
        ValueError: if ``time`` inflates 1x1 convolutions: there are none.
    """

    def __init__(
        self,
        inputs: int,
        planes: int,
        *,
        stride: int = 1,
        dilations: tuple[int, int] = (1, 1),
        shortcut_kernel: int = 1,
        attention: Slot | None = None,
        after: Slot | None = None,
        time: Time | None = None,
        relu_before_attention: bool = False,
    ) -> None:
        super().__init__(
            inputs,
            planes,
            stride=stride,
            dilation=dilations[0] if shortcut_kernel > 1 else 1,
            shortcut_kernel=shortcut_kernel,
            attention=attention,
            after=after,
            time=time,
        )
        if time is not None:
            if time.inflate == "1x1":
                raise ValueError("inflate='1x1' must be '3x3' in a basic block, which has no 1x1")
            time = _block_width(time, inputs, planes)
        later = None if time is None else replace(time, stride=1)
        self.relu_before_attention = relu_before_attention
        self.conv1 = convolution(inputs, planes, 3, stride=stride, dilation=dilations[0], time=time)
        self.norm1 = norm(planes, time)
        self.conv2 = convolution(planes, planes, 3, dilation=dilations[1], time=later)
        self.norm2 = norm(planes, time)

    def branch(self, x: Tensor) -> Tensor:
        """Return the residual before attention."""
        y = F.relu(self.norm1(self.conv1(x)), inplace=True)
        y = self.norm2(self.conv2(y))
        return F.relu(y, inplace=True) if self.relu_before_attention else y


class Bottleneck(Residual):
    """A 3x3 convolution between two of 1x1 (He et al., figure 5 right).

    Args:
        inputs: channels that enter.
        planes: width before groups; the result has four times as many channels.
        stride: spatial stride.
        dilations: dilation up to and after the place of the stride; the 3x3 convolution has the
            first, with ``stride_first`` the second.
        shortcut_kernel: extent of the shortcut's convolution (SENet-154: 3, else 1).
        attention: slot on the branch, before the sum.
        after: slot after the sum and its ReLU.
        time: None for images, else the block's own (:meth:`Time.of_block`).
        groups: groups of the 3x3 convolution (ResNeXt: 32, SENet-154: 64).
        group_width: the 3x3 convolution has ``planes * group_width // 64 * groups`` channels.
        first_reduction: the first 1x1 has so many times fewer channels than the 3x3 (SENet-154: 2).
        stride_first: put the stride into the first 1x1 convolution, as the Caffe models do, not
            into the 3x3.

    Raises:
        ValueError: if the widths leave no channel.
    """

    expansion = 4

    def __init__(
        self,
        inputs: int,
        planes: int,
        *,
        stride: int = 1,
        dilations: tuple[int, int] = (1, 1),
        shortcut_kernel: int = 1,
        attention: Slot | None = None,
        after: Slot | None = None,
        time: Time | None = None,
        groups: int = 1,
        group_width: int = 64,
        first_reduction: int = 1,
        stride_first: bool = False,
    ) -> None:
        channels = planes * self.expansion
        super().__init__(
            inputs,
            channels,
            stride=stride,
            dilation=dilations[0] if shortcut_kernel > 1 else 1,
            shortcut_kernel=shortcut_kernel,
            attention=attention,
            after=after,
            time=time,
        )
        width = planes * group_width // 64 * groups
        if width // first_reduction < 1:
            raise ValueError(
                f"groups={groups}, group_width={group_width} and first_reduction="
                f"{first_reduction} leave no channel of planes={planes}"
            )
        first = middle = last = time
        if time is not None:
            time = _block_width(time, inputs, planes)
            last = time.without_extent()
            first, middle = (time, last) if time.inflate == "1x1" else (last, time)
        strides = (stride, 1) if stride_first else (1, stride)
        self.conv1 = convolution(inputs, width // first_reduction, 1, stride=strides[0], time=first)
        self.norm1 = norm(width // first_reduction, time)
        self.conv2 = convolution(
            width // first_reduction,
            width,
            3,
            stride=strides[1],
            dilation=dilations[int(stride_first)],
            groups=groups,
            time=middle,
        )
        self.norm2 = norm(width, time)
        self.conv3 = convolution(width, channels, 1, time=last)
        self.norm3 = norm(channels, time)

    def branch(self, x: Tensor) -> Tensor:
        """Return the residual before attention."""
        y = F.relu(self.norm1(self.conv1(x)), inplace=True)
        y = F.relu(self.norm2(self.conv2(y)), inplace=True)
        return self.norm3(self.conv3(y))


def _block_width(time: Time, inputs: int, planes: int) -> Time:
    """Fix the width between factors where the whole block shares it."""
    if time.middle != "block":
        return time
    return replace(time, middle=factored_width(inputs, planes, 3, time.extents[0]))
