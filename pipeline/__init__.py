"""The root room: commands that join super-resolution, detection, shards, sweeps and tracking."""

from pipeline.sparing import spare_torchmetrics

spare_torchmetrics()
