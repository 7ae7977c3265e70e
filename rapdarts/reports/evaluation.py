"""Format the measurements of a trained network as text and images."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from rapdarts.config.resources import costs_line, show
from rapdarts.errors import plural, printable
from rapdarts.files import atomic
from rapdarts.reports import confusion
from rapdarts.reports.text_table import missing
from rapdarts.training.intervals import percent

MOST_ROWS = 20
"""Maximum number of classes for which the confusion matrix is printed."""


def describe_evaluation(values: Mapping[str, Any]) -> str:
    """Format the results of `rapdarts evaluate`: accuracy, calibration, confusion matrix, costs and time."""

    names, matrix = [*map(printable, values["classes"])], values["confusion"]
    lines = [f"test accuracy {accuracy_of(values)}"]
    if "balanced_accuracy" in values:
        mean = percent(values["balanced_accuracy"], values["balanced_interval"], ", mean over classes")
        lines.append(f"balanced accuracy {mean}")
    if "top5_accuracy" in values:
        lines.append(f"top-5 accuracy {percent(values['top5_accuracy'], values['top5_interval'])}")
    lines.append(
        f"calibration error {100 * values['calibration_error']:.2f} % ({len(values['bins'])} confidence bins),"
        f" negative log-likelihood {values['test_loss']:.4f} nats"
    )
    if len(names) <= MOST_ROWS:
        lines.append(confusion.confusion_table(matrix, names))
    else:
        mistakes = confusion.most_confused(np.array(matrix), names)
        lines += [f"{true} classified as {predicted}: {count}" for true, predicted, count in mistakes]
    size = f"  file {values['file_bytes']:,} B" if "file_bytes" in values else ""
    lines.append(costs_line(values["costs"]) + size)
    if "not_counted" in values:
        lines.append(f"not counted in the macs (no formula): {missing(values['not_counted'])}")
    if "timing" in values:
        time, one = values["timing"], values["timing"]["latency"]
        spread = f"{show(one['p10_s'], 'latency')} to {show(one['p90_s'], 'latency')}"
        threads = f", {plural(time['threads'], 'thread')}"
        lines.append(
            f"one image takes {show(one['median_s'], 'latency')} (10th to 90th percentile: {spread}),"
            f" a batch of {time['batch']} gives {time['images_per_second']:,.0f} images/s, on {time['device']}{threads}"
        )
    return "\n".join(lines)


def accuracy_of(values: Mapping[str, Any]) -> str:
    """Return the test accuracy of an evaluation, with its 95 % interval, as text."""
    return percent(values["test_accuracy"], values["interval"], f", n = {values['n']}")


def write_confusion(values: Mapping[str, Any], heading: str, file: Path) -> None:
    """Write an image of the confusion matrix, in the format of the file's suffix."""
    title = f"{heading}: {describe_evaluation(values).partition(chr(10))[0]}"
    atomic.write_atomically(
        file, confusion.draw_confusion(np.array(values["confusion"]), values["classes"], title, file.suffix)
    )


def describe_export(values: Mapping[str, Any]) -> str:
    """Format the result of `rapdarts export` for a trained network, with its difference from PyTorch."""
    size = f"written to {values['file']} ({values['bytes']:,} bytes)"
    if "card" in values:
        size += f" and {values['card']}"
    if "compared_on" not in values:  # a copy of the weights
        return size
    lines = [
        f"logits differ from PyTorch's by at most {values['largest_difference']:.2g} (the largest logit is"
        f" {values['largest_logit']:.3g}), on {values['compared_on']}",
        f"expects float32 pixels in 0..1, {values['batch']}",
    ]
    if "fp32" in values:
        rows = [(name, side) for name, side in (("fp32", values["fp32"]), ("int8", values))]
        lines += [f"activation ranges were calibrated on {values['calibrated_on']} training images"]
        lines += [f"{name}: test accuracy {accuracy_of(side)}, {side['bytes']:,} bytes" for name, side in rows]
        kept = values["weights"]
        lines.append(
            f"int8: weights take {kept['bytes']:,} bytes (priced at {kept['priced']:,} with precision=8), with biases and folded batch"
            f" norms at 32 bits; scales and zero points take {kept['scales']:,} bytes"
        )
    return "\n".join([*lines, size])
