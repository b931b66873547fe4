"""What a task file may say: the types of tasks, of their sources, and the language of templates.

Data only: no file here needs torch or another room, so a task file is read, listed and checked in
milliseconds.
"""

from momentum_bench.tasks.types.base import BaseTask, EvaluateMetric, Facts, MetricName
from momentum_bench.tasks.types.image import RESNET_6, RESNET_32, RESNET_50, AnyMethod, AnyTask, ImageTask
from momentum_bench.tasks.types.sources import AnySource, HubSource, LocalOnly, SklearnDigits, TextFolders
from momentum_bench.tasks.types.templates import (
    CANDIDATE,
    FILTERS,
    MARKED,
    PLACEHOLDER,
    TemplatePiece,
    filled,
    filtered,
    parse_template,
)
from momentum_bench.tasks.types.text import Method, Task

__all__ = [
    "CANDIDATE",
    "FILTERS",
    "MARKED",
    "PLACEHOLDER",
    "RESNET_6",
    "RESNET_32",
    "RESNET_50",
    "AnyMethod",
    "AnySource",
    "AnyTask",
    "BaseTask",
    "EvaluateMetric",
    "Facts",
    "HubSource",
    "ImageTask",
    "LocalOnly",
    "Method",
    "MetricName",
    "SklearnDigits",
    "Task",
    "TemplatePiece",
    "TextFolders",
    "filled",
    "filtered",
    "parse_template",
]
