"""Configuration: dataclasses, the recipes' YAML files and the command line. Nothing here imports torch."""

from .check import check_config, check_ranges
from .load import build_config, from_dict, load_config, parse_config
from .options import Config, DataConfig, EvalConfig, ModelConfig, OptimConfig, option_names, to_dict
from .parser import CONFIGS, Parser

__all__ = [
    "CONFIGS",
    "Config",
    "DataConfig",
    "EvalConfig",
    "ModelConfig",
    "OptimConfig",
    "Parser",
    "build_config",
    "check_config",
    "check_ranges",
    "from_dict",
    "load_config",
    "option_names",
    "parse_config",
    "to_dict",
]
