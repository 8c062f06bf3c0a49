"""An executor that runs the steps of builds and measurements on a Ray cluster, or on all cores of this machine.

`ray` uses the cluster that RAY_ADDRESS names, or starts one on this machine. `ray:HOST:PORT` uses the cluster whose
head has this address. Needs the extra `ray`.
"""

from __future__ import annotations

from sglora_cli.api import Executor, hookimpl
from sglora_ray.executor import Ray

SGLORA_API = "1.0"


@hookimpl
def sglora_executors() -> list[Executor]:
    return [Ray()]
