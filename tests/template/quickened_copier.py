"""The command line of Copier, quickened where this module is imported: in the server that forks Copier."""

import pytest
from copier import _cli

from tests.template.quick_copier import quicken

__all__ = ["_cli"]

quicken(pytest.MonkeyPatch())
