"""Whether shards hold what a training is to read of them: asked once, before the first batch."""

from pipeline.cache import GIB
from pipeline.index import Index
from pipeline.transfer import is_remote


def check_pieces(index: Index, shards: str, *, crop: int, margin: int) -> None:
    """Crops and their margins must fit into the stored pieces.

    Raises:
        ValueError: they do not.
    """
    cut = index.cut["size"]
    if 0 < cut < crop + 2 * margin:
        margins = f" with a margin of {margin}" if margin else ""
        raise ValueError(
            f"data.crop {crop}{margins} is larger than the pieces of {cut} pixels in "
            f"'{shards}'; lower data.crop, or write larger pieces with: srdet shards --cut"
        )


def check_frames(index: Index, shards: str, *, frames: int, repeat_still: bool) -> None:
    """Networks of one frame read pictures, those of several frames clips that are long enough.

    Raises:
        ValueError: the shards hold something else.
    """
    stored = index.frames
    write = f"write clips with: srdet shards --frames {frames}"
    if stored == 1 and frames > 1 and not repeat_still:
        raise ValueError(
            f"'{shards}' holds single pictures, the network reads {frames} frames; "
            f"{write}, or have each picture repeated with --data.repeat_still true"
        )
    if stored > 1 and frames == 1:
        raise ValueError(
            f"'{shards}' holds clips of {stored} frames, the network reads single "
            "pictures; write the frames as pictures: srdet shards without --frames"
        )
    if 1 < stored < frames:
        raise ValueError(
            f"'{shards}' holds clips of {stored} frames, the network reads {frames}; {write}"
        )


def check_cache(index: Index, shards: str, *, limit_gib: float) -> None:
    """A cache must hold one shard at least, where shards come from afar.

    Raises:
        ValueError: it does not.
    """
    sizes = [shard.bytes for split in index.splits.values() for shard in split.shards]
    largest = max(sizes, default=0) / GIB
    if is_remote(shards) and largest > limit_gib:
        raise ValueError(
            f"data.cache_gib {limit_gib} does not hold one shard of '{shards}' (up "
            f"to {largest:.3g} GiB); allow more, or set data.cache to null"
        )
