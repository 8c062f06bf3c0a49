"""The public API. Plugins and Python users import from this module and from nothing else in `sglora_cli`.

`__all__` has one section for all plugins and one for each kind of plugin. Names that need torch are imported when they
are first used, so that importing a plugin stays fast.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from sglora_cli.bench.bootstrap import is_clear
from sglora_cli.bench.paper import paper_numbers
from sglora_cli.bench.rows import averages, build_ranges, recovery, spreads
from sglora_cli.bench.tables import BEST, SECOND, ResultTable, cell_name, result_legend, result_tables
from sglora_cli.config import (
    GenerateConfig,
    LoraConfig,
    PriorConfig,
    RuntimeConfig,
    TrainConfig,
    check_no_table,
    from_mapping,
    held_out_knob,
    knob,
    options_of,
    with_settings,
)
from sglora_cli.data.caption_file import (
    CAPTIONS_CSV,
    CAPTIONS_JSONL,
    Captioned,
    coco_images,
    coco_rows,
    find_captions,
    karpathy_rows,
    karpathy_sentences,
    read_captions,
)
from sglora_cli.data.description import Description
from sglora_cli.errors import (
    BadFile,
    Mismatch,
    PluginError,
    SgloraError,
    SgloraWarning,
    Unavailable,
    UnknownName,
    UsageError,
    failure_of,
)
from sglora_cli.files.atomic import put_file, put_folder, scratch_folder, sync_tree, write_bytes
from sglora_cli.files.escape import csv_cell, latex_text, markdown_code, markdown_text, printable, shell_word
from sglora_cli.files.hashes import content_hash, data_hash, file_hash, first_copies, is_intact
from sglora_cli.files.images import (
    image_endings,
    other_images,
    printable_name,
    read_image,
    visible_files,
    why_undecoded,
)
from sglora_cli.files.named_once import NamedOnce, plain_name
from sglora_cli.files.tensors import Checkpoint, load_tensors, parse_tensors, save_tensors
from sglora_cli.files.text import (
    csv_rows,
    jsonl_rows,
    parse_json,
    read_json,
    read_sealed,
    text_field,
    text_lines,
    texts_field,
    write_sealed,
)
from sglora_cli.files.untrusted import TEXT_LIMIT, entry_fault, inside, json_value, name_fault, read_bytes
from sglora_cli.network import hub_unreachable, no_network, offline
from sglora_cli.plugin.contracts import (
    API_VERSION,
    Backbone,
    Captioner,
    CaptionModel,
    ChecksText,
    ChoosesSites,
    CountsImages,
    CountsTokens,
    Dataset,
    EncodesMeaning,
    Evidence,
    Executor,
    Fetches,
    Fitted,
    Generator,
    HasMembers,
    HasProjection,
    HidesTokens,
    IgnoresExperts,
    Job,
    KnowsEarlier,
    ListsImages,
    MergesCheckpoints,
    Model,
    PlansFetch,
    PreparesPhotos,
    Reporter,
    SaysAbsent,
    SaysCaptionCost,
    SaysCost,
    SaysDownload,
    SaysNames,
    SaysPassedOver,
    SaysTerms,
    UsesDevice,
    UsesEvidence,
)
from sglora_cli.plugin.hookspecs import hookimpl
from sglora_cli.plugin.host import Host
from sglora_cli.plugin.values import (
    PHRASE,
    ROLES,
    SPLITS,
    CaptionerCost,
    Download,
    Experts,
    FetchPlan,
    Listed,
    Material,
    Moments,
    Photo,
    Report,
    Resources,
    Row,
    Step,
    Task,
    TaskPool,
    Terms,
)
from sglora_cli.system.fingerprints import FrozenFile, remembered
from sglora_cli.system.locks import locked
from sglora_cli.system.paths import cache_folder
from sglora_cli.system.progress import progress
from sglora_cli.system.transfer import Attempts, Pace

if TYPE_CHECKING:
    from sglora_cli.adapter.checkpoint import read_state
    from sglora_cli.adapter.read import read_adapter
    from sglora_cli.adapter.state_dict import FOLDER_FILES
    from sglora_cli.adapter.write import write_adapter
    from sglora_cli.build.losses import classification_loss, contrastive_loss
    from sglora_cli.generate.session import Session
    from sglora_cli.lora.algebra import balanced, compress, compress_all, joined, mix_updates, singular, site_products
    from sglora_cli.lora.attention import AttentionSites, Update, attached, packed_attention
    from sglora_cli.lora.coordinates import AnyScaling, Projection, Scaling, restored_projection
    from sglora_cli.lora.layout import Layout, Site, mix, text_of, text_tensor
    from sglora_cli.lora.prior import Prior, Query, prior_without, select
    from sglora_cli.lora.projection import ProjectionUpdate, project, split_projection
    from sglora_cli.lora.removal import SeenMeans, removal
    from sglora_cli.pack.pack import Pack
    from sglora_cli.plugin.fit_cost import parameters_of, projection_cost, reading_seconds, step_seconds
    from sglora_cli.plugin.learning import Learning
    from sglora_cli.plugin.retrieval import RetrievalConfig, check_pool, learn_by_retrieval, seen_means
    from sglora_cli.plugin.sentences import queries
    from sglora_cli.plugin.states import state_blocks, state_coordinates, state_projection, state_spread
    from sglora_cli.plugin.tokens import drop_tokens
    from sglora_cli.plugin.values import TaskTensors
    from sglora_cli.search.album import Album
    from sglora_cli.system.hardware import free_device_memory, pick_device, pick_precision


_LATE = {
    "adapter.checkpoint": "read_state",
    "adapter.state_dict": "FOLDER_FILES",
    "adapter.read": "read_adapter",
    "adapter.write": "write_adapter",
    "build.losses": "classification_loss contrastive_loss",
    "generate.session": "Session",
    "lora.algebra": "balanced compress compress_all joined mix_updates singular site_products",
    "lora.attention": "attached AttentionSites packed_attention Update",
    "lora.coordinates": "AnyScaling Projection restored_projection Scaling",
    "lora.layout": "Layout mix Site text_of text_tensor",
    "lora.prior": "Prior prior_without Query select",
    "lora.projection": "project ProjectionUpdate split_projection",
    "lora.removal": "removal SeenMeans",
    "pack.pack": "Pack",
    "plugin.fit_cost": "parameters_of projection_cost reading_seconds step_seconds",
    "plugin.learning": "Learning",
    "plugin.retrieval": "RetrievalConfig check_pool learn_by_retrieval seen_means",
    "plugin.sentences": "queries",
    "plugin.states": "state_blocks state_coordinates state_projection state_spread",
    "plugin.tokens": "drop_tokens",
    "plugin.values": "TaskTensors",
    "search.album": "Album",
    "system.hardware": "free_device_memory pick_device pick_precision",
}
"""Module in sglora_cli -> its names that need torch."""
_MODULES = {name: f"sglora_cli.{module}" for module, names in _LATE.items() for name in names.split()}

__all__ = [
    # All plugins: the hook, errors, settings, files, and whether the network may be used
    "hookimpl",
    "API_VERSION",
    "HasMembers",
    "SaysTerms",
    "Terms",
    "RuntimeConfig",
    "SgloraError",
    "SgloraWarning",
    "BadFile",
    "Mismatch",
    "PluginError",
    "Unavailable",
    "UnknownName",
    "UsageError",
    "knob",
    "held_out_knob",
    "from_mapping",
    "with_settings",
    "check_no_table",
    "options_of",
    "cache_folder",
    "write_sealed",
    "read_sealed",
    "is_intact",
    "content_hash",
    "data_hash",
    "file_hash",
    "locked",
    "progress",
    "shell_word",
    "read_bytes",
    "read_json",
    "write_bytes",
    "TEXT_LIMIT",
    "offline",
    "no_network",
    "hub_unreachable",
    # Data sets: a folder -> tasks with photos and captions
    "Dataset",
    "Fetches",
    "PlansFetch",
    "Attempts",
    "Pace",
    "FetchPlan",
    "Download",
    "ListsImages",
    "CountsImages",
    "SaysPassedOver",
    "Task",
    "Photo",
    "Listed",
    "read_image",
    "image_endings",
    "other_images",
    "first_copies",
    "visible_files",
    "why_undecoded",
    "printable_name",
    "SPLITS",
    "CAPTIONS_JSONL",
    "CAPTIONS_CSV",
    "Captioned",
    "find_captions",
    "read_captions",
    "coco_rows",
    "coco_images",
    "karpathy_rows",
    "karpathy_sentences",
    "csv_rows",
    "jsonl_rows",
    "text_lines",
    "text_field",
    "texts_field",
    "json_value",
    "parse_json",
    "name_fault",
    "entry_fault",
    "inside",
    "plain_name",
    "NamedOnce",
    "put_file",
    "put_folder",
    "scratch_folder",
    "sync_tree",
    # Captioners: an image -> captions
    "Captioner",
    "CaptionModel",
    "SaysCaptionCost",
    "CaptionerCost",
    # Backbones: images and sentences -> unit vectors, with adapters
    "Backbone",
    "Model",
    "SaysAbsent",
    "SaysDownload",
    "CountsTokens",
    "ChecksText",
    "EncodesMeaning",
    "PreparesPhotos",
    "HidesTokens",
    "MergesCheckpoints",
    "HasProjection",
    "SaysNames",
    "KnowsEarlier",
    "Layout",
    "Site",
    "AttentionSites",
    "Update",
    "attached",
    "packed_attention",
    "project",
    "ProjectionUpdate",
    "split_projection",
    "drop_tokens",
    "free_device_memory",
    "pick_device",
    "pick_precision",
    "load_tensors",
    "parse_tensors",
    "save_tensors",
    "read_state",
    "FOLDER_FILES",
    "FrozenFile",
    "remembered",
    # Generators: a prior -> adapters
    "Generator",
    "Fitted",
    "SaysCost",
    "UsesEvidence",
    "ChoosesSites",
    "IgnoresExperts",
    "UsesDevice",
    "Evidence",
    "Experts",
    "Moments",
    "removal",
    "SeenMeans",
    "seen_means",
    "PHRASE",
    "TaskPool",
    "Material",
    "Prior",
    "prior_without",
    "TaskTensors",
    "Checkpoint",
    "select",
    "mix",
    "mix_updates",
    "joined",
    "balanced",
    "compress",
    "compress_all",
    "singular",
    "site_products",
    "Scaling",
    "Projection",
    "AnyScaling",
    "restored_projection",
    "state_blocks",
    "state_projection",
    "state_coordinates",
    "state_spread",
    "Learning",
    "RetrievalConfig",
    "learn_by_retrieval",
    "text_of",
    "text_tensor",
    "check_pool",
    "parameters_of",
    "step_seconds",
    "reading_seconds",
    "projection_cost",
    "contrastive_loss",
    "classification_loss",
    # Reporters: measured rows -> text
    "Reporter",
    "Report",
    "Row",
    "ResultTable",
    "result_tables",
    "result_legend",
    "cell_name",
    "printable",
    "markdown_text",
    "markdown_code",
    "latex_text",
    "csv_cell",
    "paper_numbers",
    "BEST",
    "SECOND",
    "averages",
    "spreads",
    "build_ranges",
    "recovery",
    "is_clear",
    # Executors: the steps of a job -> their files
    "Executor",
    "Job",
    "Step",
    "Resources",
    "failure_of",
    # Python users: packs and sessions without the command line
    "Session",
    "Description",
    "Album",
    "Pack",
    "Query",
    "queries",
    "Host",
    "GenerateConfig",
    "LoraConfig",
    "PriorConfig",
    "TrainConfig",
    "ROLES",
    "read_adapter",
    "write_adapter",
]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(importlib.import_module(_MODULES[name]), name)
    raise AttributeError(f"module 'sglora_cli.api' has no attribute {name!r}")
