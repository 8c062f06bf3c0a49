"""What packs of 10 to 10,000 experts cost: `PYTHONPATH=tests/support python tests/benchmarks/scale.py`.

Packs of made-up experts in the starter's layout are written to a temporary folder (0.8 GB; 8 GB with --huge), and each
operation is timed on one thread, by processor time, in turn on all packs. The exit code is 1 if opening a pack or a
warm sentence costs more than 3 times as much with 10,000 experts as with 10.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

SIZES, HUGE, MOST = (10, 1_000, 10_000), 100_000, 3.0
FLAT = ("open", "sentence")
"""What must cost at most MOST times as much with 10,000 experts as with 10."""


def processor_seconds(call: Callable[[], object], repeats: int) -> float:
    """The median of some calls."""
    seconds = []
    for _ in range(repeats):
        began = time.process_time()
        call()
        seconds.append(time.process_time() - began)
    return statistics.median(seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--huge", action="store_true", help="also a pack of 100,000")
    parser.add_argument("--folder", type=Path, help="where the packs are written; the system's temporary folder")
    options = parser.parse_args()
    sizes = (*SIZES, HUGE) if options.huge else SIZES
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        os.environ["SGLORA_HOME"] = folder
        costs = {size: measured(Path(folder), size) for size in sizes}
    print(f"\n| CPU ms | {' | '.join(f'{size:,}' for size in sizes)} | {SIZES[-1]:,} / {SIZES[0]:,} |")
    print("|---|" + "---|" * (len(sizes) + 1))
    too_much = []
    for name in costs[SIZES[0]]:
        ratio = costs[SIZES[-1]][name] / costs[SIZES[0]][name]
        print(f"| {name} | {' | '.join(f'{1e3 * costs[size][name]:,.2f}' for size in sizes)} | {ratio:.1f} |")
        too_much += [f"{name}: {ratio:.1f}"] if name in FLAT and ratio > MOST else []
    if too_much:
        sys.exit(f"more than {MOST:g} times as much: {', '.join(too_much)}")


def measured(root: Path, size: int) -> dict[str, float]:
    """Processor seconds of each operation on a pack of so many experts."""
    import sglora_packs
    import torch
    from synthetic_packs import synthetic_pack

    from sglora_cli.adapter.file import save_adapter
    from sglora_cli.build.edit import NewExpert, add_experts, remove_expert
    from sglora_cli.cli.describe import pack_facts
    from sglora_cli.generate.session import Session
    from sglora_cli.pack.archive import export_pack, import_pack
    from sglora_cli.pack.coverage import load_coverage
    from sglora_cli.pack.library import Library, PackLocation
    from sglora_cli.pack.pack import Pack
    from sglora_cli.plugin.host import Host

    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    starter = Pack(Path(sglora_packs.__file__).parent / "starter")
    host, name = Host.load(), f"synthetic-{size}"
    folder = root / "cache/packs" / name
    widths = starter.index_ED.shape[1], load_coverage(starter).tasks_TW.shape[1]
    synthetic_pack(folder, size, starter.layout, starter.backbone, starter.fingerprint, widths)
    costs = {"open": processor_seconds(lambda: Pack(folder), 50)}
    began, before = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    session = Session.open(name, "top-k", host)
    session.generate("a photo of a pug")
    costs["first sentence, with the backbone"] = time.process_time() - began
    costs["sentence"] = processor_seconds(lambda: session.generate("a photo of a pug"), 15)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    print(f"{size:,}: the session took {grown:.0f} MiB", file=sys.stderr)
    costs["experts read, all"] = processor_seconds(lambda: Pack(folder).check_content(), 1)
    pack = Pack(folder)
    costs["show"] = processor_seconds(lambda: pack_facts(pack), 1)
    costs["verify"] = processor_seconds(pack.verify, 1)
    archive = root / "pack.sglora.zip"
    costs["export"] = processor_seconds(lambda: export_pack(pack, archive), 1)
    costs["import"] = processor_seconds(lambda: import_pack(host, archive, "imported"), 1)
    shutil.rmtree(root / "cache/packs/imported")
    archive.unlink()
    adapter = root / "one.safetensors"
    save_adapter(adapter, starter.layout, starter.experts.means([0])[0], {"fingerprint": starter.fingerprint})
    location, library = PackLocation(name, folder, "built"), Library(host.recipe_folders)
    new = NewExpert([adapter], "a photo of a teapot", "things/teapot")
    costs["add one, with the backbone"] = processor_seconds(lambda: add_experts(host, location, [new]), 1)
    costs["remove one"] = processor_seconds(lambda: remove_expert(Pack(folder), "things/teapot", library), 1)
    many = [NewExpert([adapter], f"a photo of a teapot {n}", f"things/teapot {n}") for n in range(100)]
    costs["add a hundred"] = processor_seconds(lambda: add_experts(host, location, many), 1)
    shutil.rmtree(folder)
    return costs


if __name__ == "__main__":
    main()
