"""``srdet sample``: pictures drawn from a network that gives a likelihood.

srdet sample --model runs/pixels/net.safetensors --pictures small/ --out drawn/ --count 4

What low resolution leaves open has many answers; each drawn picture is one of them.
"""

from pathlib import Path

import torch

from pipeline.options import run_function
from pipeline.pictures import read_picture, to_float, write_picture
from pipeline.places import places_for
from pipeline.progress import bar, console
from pipeline.upscalers import network_file
from pipeline.world import best_device
from sr_module.checkpoint import load_net


def main(words: list[str]) -> None:
    """The command."""
    run_function(sample, words, name="sample")


def sample(
    model: str,
    pictures: list[Path],
    out: Path,
    *,
    count: int = 1,
    temperature: float = 1.0,
    seed: int = 0,
    device: str | None = None,
) -> int:
    """Draws enlargements of small pictures from a network that gives a likelihood.

    Args:
        model: a trained network of ``srdet models``, or a file of weights.
        pictures: folders (all levels) or files, no larger than the network's low resolution.
        out: folder for NAME_0.png, NAME_1.png, ...
        count: pictures drawn of each.
        temperature: 1 draws as often as the network finds likely, less draws the likelier ones more
            often, 0 takes the likeliest value of each pixel in turn.
        seed: of the random numbers; the same seed draws the same pictures.
        device: where the network runs; cuda where there is one without it.

    Returns:
        How many pictures were written.

    Raises:
        ValueError: the network gives no likelihood, a picture is larger than it draws, or a
            setting is out of range.
        FileNotFoundError: no such network or picture.
    """
    if count < 1:
        raise ValueError(f"--count {count}: 1 or more pictures of each")
    net = load_net(network_file(model))
    device = device or best_device()
    net.to(device)
    places = places_for(pictures, out, "png")
    random = torch.Generator(device).manual_seed(seed)
    with bar(f"drawing {count} of each of {len(places)} pictures", None) as advance:
        for path, place in places.items():
            lr = to_float(read_picture(path)).to(device).expand(count, -1, -1, -1)
            try:
                drawn = net.sample(
                    lr,
                    temperature=temperature,
                    generator=random,
                    progress=lambda done, rows: advance(1),
                )
            except ValueError as error:
                raise ValueError(f"{path}: {error}") from error
            for number, picture in enumerate(drawn.cpu()):
                write_picture(picture, place.with_name(f"{place.stem}_{number}.png"))
    written = count * len(places)
    console.print(f"{written} pictures written to {out}", highlight=False)
    return written
