"""What a plugin, and a Python user, may import: this module and nothing else of `sglora_cli`.

Names that need torch are fetched when they are first used, so that a plugin costs nothing
until it works.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from sglora_cli.bench.bootstrap import is_clear
from sglora_cli.bench.rows import averages, build_ranges, recovery, spreads
from sglora_cli.config import (
    GenerateConfig,
    LoraConfig,
    PriorConfig,
    RuntimeConfig,
    TrainConfig,
    from_mapping,
    knob,
    options_of,
)
from sglora_cli.errors import (
    BadFile,
    Mismatch,
    PluginError,
    SgloraError,
    SgloraWarning,
    Unavailable,
    UnknownName,
    UsageError,
)
from sglora_cli.files.atomic import put_file, put_folder, scratch_folder, sync_tree, write_bytes
from sglora_cli.files.hashes import content_hash, file_hash
from sglora_cli.files.images import read_image
from sglora_cli.files.tensors import Checkpoint, load_tensors, save_tensors
from sglora_cli.files.text import csv_rows, jsonl_rows, read_json, text_field, text_lines, texts_field
from sglora_cli.files.untrusted import TEXT_LIMIT, entry_fault, inside, json_value, name_fault, read_bytes
from sglora_cli.network import hub_unreachable, no_network, offline
from sglora_cli.plugin.contracts import (
    API_VERSION,
    Backbone,
    Captioner,
    CaptionModel,
    Dataset,
    Evidence,
    Fitted,
    Generator,
    Model,
    Reporter,
)
from sglora_cli.plugin.hookspecs import hookimpl
from sglora_cli.plugin.host import Host
from sglora_cli.plugin.values import ROLES, Experts, Listed, Material, Photo, Report, Row, Task
from sglora_cli.system.locks import locked
from sglora_cli.system.paths import cache_folder
from sglora_cli.system.progress import progress

if TYPE_CHECKING:
    from sglora_cli.adapter.checkpoint import read_state
    from sglora_cli.adapter.read import read_adapter
    from sglora_cli.adapter.write import write_adapter
    from sglora_cli.build.batches import drop_tokens
    from sglora_cli.build.losses import classification_loss, contrastive_loss
    from sglora_cli.generate.session import Session
    from sglora_cli.lora.algebra import compress, mix_updates, singular, site_products
    from sglora_cli.lora.attention import AttentionSites, Update, attached, packed_attention
    from sglora_cli.lora.layout import Layout, Site, mix
    from sglora_cli.lora.prior import Prior, select
    from sglora_cli.pack.pack import Pack
    from sglora_cli.plugin.values import TaskTensors
    from sglora_cli.system.hardware import pick_device, pick_precision


_LATE = {
    "compress": "sglora_cli.lora.algebra",
    "mix_updates": "sglora_cli.lora.algebra",
    "singular": "sglora_cli.lora.algebra",
    "site_products": "sglora_cli.lora.algebra",
    "read_adapter": "sglora_cli.adapter.read",
    "read_state": "sglora_cli.adapter.checkpoint",
    "write_adapter": "sglora_cli.adapter.write",
    "Layout": "sglora_cli.lora.layout",
    "Site": "sglora_cli.lora.layout",
    "mix": "sglora_cli.lora.layout",
    "Pack": "sglora_cli.pack.pack",
    "AttentionSites": "sglora_cli.lora.attention",
    "Update": "sglora_cli.lora.attention",
    "attached": "sglora_cli.lora.attention",
    "packed_attention": "sglora_cli.lora.attention",
    "pick_device": "sglora_cli.system.hardware",
    "pick_precision": "sglora_cli.system.hardware",
    "Prior": "sglora_cli.lora.prior",
    "TaskTensors": "sglora_cli.plugin.values",
    "drop_tokens": "sglora_cli.build.batches",
    "classification_loss": "sglora_cli.build.losses",
    "contrastive_loss": "sglora_cli.build.losses",
    "select": "sglora_cli.lora.prior",
    "Session": "sglora_cli.generate.session",
}

__all__ = [
    "API_VERSION",
    "ROLES",
    "TEXT_LIMIT",
    "AttentionSites",
    "Backbone",
    "BadFile",
    "CaptionModel",
    "Captioner",
    "Checkpoint",
    "Dataset",
    "Evidence",
    "Experts",
    "Fitted",
    "GenerateConfig",
    "Generator",
    "Host",
    "Layout",
    "Listed",
    "LoraConfig",
    "Material",
    "Mismatch",
    "Model",
    "Pack",
    "Photo",
    "PluginError",
    "Prior",
    "PriorConfig",
    "Report",
    "Reporter",
    "Row",
    "RuntimeConfig",
    "Session",
    "SgloraError",
    "SgloraWarning",
    "Site",
    "Task",
    "TaskTensors",
    "TrainConfig",
    "Unavailable",
    "UnknownName",
    "Update",
    "UsageError",
    "attached",
    "averages",
    "build_ranges",
    "cache_folder",
    "classification_loss",
    "compress",
    "content_hash",
    "contrastive_loss",
    "csv_rows",
    "entry_fault",
    "file_hash",
    "from_mapping",
    "drop_tokens",
    "hookimpl",
    "hub_unreachable",
    "inside",
    "is_clear",
    "json_value",
    "jsonl_rows",
    "knob",
    "load_tensors",
    "locked",
    "mix",
    "mix_updates",
    "name_fault",
    "no_network",
    "offline",
    "options_of",
    "packed_attention",
    "pick_device",
    "pick_precision",
    "progress",
    "put_file",
    "put_folder",
    "read_adapter",
    "read_bytes",
    "read_image",
    "read_json",
    "read_state",
    "recovery",
    "save_tensors",
    "scratch_folder",
    "select",
    "singular",
    "site_products",
    "spreads",
    "sync_tree",
    "text_field",
    "text_lines",
    "texts_field",
    "write_adapter",
    "write_bytes",
]


def __getattr__(name: str) -> Any:
    if name in _LATE:
        return getattr(importlib.import_module(_LATE[name]), name)
    raise AttributeError(f"module 'sglora_cli.api' has no attribute {name!r}")
