"""Small-object detection: boxes, windows, detectors, COCO evaluation, paired statistics.

A leaf room: it imports nothing of this project outside itself. Super-resolution reaches it as a
plain function (``Upscale``), a detector is another one (``Detector``), and ``Detections`` is what
crosses every border. Pictures are ``(3, H, W)`` RGB float32 in [0, 1]; boxes are
``x1, y1, x2, y2`` float32 in pixels, where pixel ``i`` covers the interval from ``i`` to ``i + 1``.
"""

from detection.boxes import Detections, Detector, Upscale

__all__ = ["Detections", "Detector", "Upscale"]
