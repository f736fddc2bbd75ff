"""The root room: commands that join super-resolution, detection, shards, sweeps and tracking."""
