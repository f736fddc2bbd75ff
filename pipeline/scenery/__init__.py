"""How the built-in scenes are drawn: paper and camera, ground, land uses, objects."""
