"""What a plugin, and a Python user, may import: this module and nothing else of `sglora_cli`.

Names that need torch are fetched when they are first used, so that a plugin costs nothing
until it works.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from sglora_cli.checkpoints import Checkpoint
from sglora_cli.configs import (
    GenerateConfig,
    LoraConfig,
    PriorConfig,
    RuntimeConfig,
    TrainConfig,
    from_mapping,
    knob,
    options_of,
)
from sglora_cli.contracts import (
    API_VERSION,
    ROLES,
    Backbone,
    Captioner,
    CaptionModel,
    Dataset,
    Evidence,
    Experts,
    Fitted,
    Generator,
    Listed,
    Material,
    Model,
    Photo,
    Report,
    Reporter,
    Row,
    Site,
    Task,
)
from sglora_cli.drafts import put_file, put_folder, scratch_folder, sync_tree
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
from sglora_cli.files import (
    content_hash,
    file_hash,
    inside,
    load_tensors,
    read_image,
    read_json,
    save_tensors,
    write_bytes,
)
from sglora_cli.hookspecs import hookimpl
from sglora_cli.host import Host
from sglora_cli.locking import locked
from sglora_cli.offline import hub_unreachable, no_network, offline
from sglora_cli.progressing import progress
from sglora_cli.rows import averages, recovery, spreads
from sglora_cli.settings import cache_folder
from sglora_cli.statistics import is_clear
from sglora_cli.strict import TEXT_LIMIT, json_value, name_fault, read_bytes
from sglora_cli.text_rows import csv_rows, jsonl_rows, text_field, text_lines, texts_field

if TYPE_CHECKING:
    from sglora_cli.adapters import Layout, mix
    from sglora_cli.attaching import AttentionSites, Update, attached, packed_attention
    from sglora_cli.batches import TaskTensors, hidden
    from sglora_cli.devices import pick_device, pick_precision
    from sglora_cli.formats import read_adapter, read_state, write_adapter
    from sglora_cli.generating import Session
    from sglora_cli.losses import classification_loss, contrastive_loss
    from sglora_cli.lowrank import compress, mix_updates, singular, site_products
    from sglora_cli.packs import Pack
    from sglora_cli.semantics import Prior, select

_LATE = {
    "compress": "sglora_cli.lowrank",
    "mix_updates": "sglora_cli.lowrank",
    "singular": "sglora_cli.lowrank",
    "site_products": "sglora_cli.lowrank",
    "read_adapter": "sglora_cli.formats",
    "read_state": "sglora_cli.formats",
    "write_adapter": "sglora_cli.formats",
    "Layout": "sglora_cli.adapters",
    "mix": "sglora_cli.adapters",
    "Pack": "sglora_cli.packs",
    "AttentionSites": "sglora_cli.attaching",
    "Update": "sglora_cli.attaching",
    "attached": "sglora_cli.attaching",
    "packed_attention": "sglora_cli.attaching",
    "pick_device": "sglora_cli.devices",
    "pick_precision": "sglora_cli.devices",
    "Prior": "sglora_cli.semantics",
    "TaskTensors": "sglora_cli.batches",
    "hidden": "sglora_cli.batches",
    "classification_loss": "sglora_cli.losses",
    "contrastive_loss": "sglora_cli.losses",
    "select": "sglora_cli.semantics",
    "Session": "sglora_cli.generating",
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
    "cache_folder",
    "classification_loss",
    "compress",
    "content_hash",
    "contrastive_loss",
    "csv_rows",
    "file_hash",
    "from_mapping",
    "hidden",
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
