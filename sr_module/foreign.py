"""Published weights that other programs wrote, behind our contract: the only door to spandrel.

Nothing is unpickled, except that ``.pth`` files pass through spandrel's reader, which admits
tensors only.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor, nn

from sr_module.archs.layers import CONTEXT
from sr_module.net import SRNet
from sr_module.weight_files import AGAIN, explaining, first_few

if TYPE_CHECKING:
    from spandrel import ImageModelDescriptor, ModelLoader


class ForeignNet(SRNet):
    """A published network behind our contract, for inference only.

    Args:
        descriptor: spandrel's ``ImageModelDescriptor``; it pads to its network's own needs and
            clamps to [0, 1].
    """

    def __init__(self, descriptor: "ImageModelDescriptor[nn.Module]") -> None:
        super().__init__()
        self.scale = descriptor.scale
        self.channels = descriptor.input_channels
        self.multiple_of = descriptor.size_requirements.multiple_of
        self.overlap = -(-CONTEXT // self.multiple_of) * self.multiple_of
        self.model = descriptor.model
        self.descriptor = descriptor

    def forward(self, lr: Tensor) -> Tensor:
        """``(B, channels, H, W) -> (B, channels, scale * H, scale * W)``."""
        sr: Tensor = self.descriptor(lr)
        return sr


def foreign_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of another program's file, without the wrappings of its trainer.

    Raises:
        ValueError: the file is damaged, or holds more than tensors.
    """
    from spandrel import ModelLoader

    with explaining(path):
        state = ModelLoader(device="cpu").load_state_dict_from_file(path)
        return {key: value for key, value in state.items() if isinstance(value, Tensor)}


def load_foreign(path: Path) -> SRNet:
    """The network in a file of published weights, on the CPU, in evaluation mode.

    Raises:
        ValueError: the file is damaged, or holds no super-resolution network that spandrel knows.
    """
    from spandrel import ImageModelDescriptor, ModelLoader, UnsupportedModelError

    tensors = foreign_tensors(path)
    loader = ModelLoader(device="cpu")
    try:
        descriptor = loader.load_from_state_dict(tensors)
    except UnsupportedModelError as error:
        raise ValueError(
            f"{path}: weights of an architecture that neither srdet nor spandrel knows, beginning "
            f"with {first_few(list(tensors))}; give a network that srdet trained, or a published "
            "one"
        ) from error
    except (RuntimeError, LookupError) as error:  # tensors are missing, or of another shape
        raise ValueError(
            f"{path}: its tensors do not fit {_architecture(loader, tensors)}, which they are like:"
            f" {_misfit(error)}; {AGAIN}"
        ) from error
    if (
        not isinstance(descriptor, ImageModelDescriptor)
        or descriptor.input_channels != descriptor.output_channels
    ):
        raise ValueError(
            f"{path}: {descriptor.architecture.name} is not a super-resolution network"
        )
    return ForeignNet(descriptor).eval()


def _architecture(loader: "ModelLoader", tensors: Mapping[str, Tensor]) -> str:
    """What spandrel takes the tensors for."""
    supports = loader.registry.architectures("detection")
    return next((each.architecture.name for each in supports if each.detect(dict(tensors))), "any")


def _misfit(error: Exception) -> str:
    """What is missing or unfit, as torch tells it, or a key that spandrel looked for in vain."""
    if isinstance(error, LookupError):
        return f"missing: {error.args[0]}"
    return " ".join(str(error).partition(":")[2].split()).rstrip(". ") or str(error)
