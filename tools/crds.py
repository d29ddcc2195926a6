"""Find the schemas of the custom resources in the charts. `python -m tools.crds` prints the folder that holds them.

cloudcoil generates pydantic models from the CRDs, and pydantic generates JSON schemas from the models. The pinned
versions are the newest that support every Python that we support. They are old enough that current operators accept
everything that they accept.
"""

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any, Final

from jobnik_devtools.environments import clean_environment

from tools.external import TOOLS, keep, uv

FOLDER: Final = TOOLS / "crds"

PACKAGES: Final = ("cloudcoil-models-keda==2.16.1.0", "cloudcoil-models-prometheus-operator==0.80.1.0")
REQUIRED: Final = "cloudcoil==0.6.0"

WRITE: Final = """
import json, sys
from cloudcoil.models.keda.v1alpha1 import ScaledObject
from cloudcoil.models.prometheus_operator.v1 import PodMonitor, PrometheusRule
models = (ScaledObject, PodMonitor, PrometheusRule)
json.dump({model.__name__: model.model_json_schema() for model in models}, sys.stdout)
"""

Schema = dict[str, Any]


def find_schemas() -> Mapping[str, Schema]:
    """Return a strict JSON schema for each kind, which rejects unknown fields.

    Raises:
        MissingProgramError: The schemas must be downloaded, and uv is not installed.
    """
    file = FOLDER / f"{'-'.join(package.rpartition('==')[2] for package in PACKAGES)}.json"
    if not file.exists():
        _fetch(file)
    return json.loads(file.read_text(), object_hook=_closed)


def _fetch(target: Path) -> None:
    wanted = [option for package in (REQUIRED, *PACKAGES) for option in ("--with", package)]
    command = [uv(), "run", "--quiet", "--no-project", "--isolated", "--python", sys.executable, *wanted]
    with NamedTemporaryFile() as written:
        subprocess.run([*command, "python", "-c", WRITE], env=clean_environment(), check=True, stdout=written)
        keep(Path(written.name), target)


def _closed(schema: Schema) -> Schema:
    """Make an object reject fields that it does not name. An object that names no fields is a map and stays open."""
    return schema | {"additionalProperties": False} if "properties" in schema else schema


if __name__ == "__main__":
    find_schemas()
    print(FOLDER)
