"""Annotation files of other kinds than COCO, one file a kind: text in, marks in pixels out."""
