"""Registration of models for transformers' AutoModel, without importing transformers.

`import textdiff` and `import image` stay cheap: a module that registers models is imported when
transformers' Auto classes are, or at once if they were imported before.
"""

import importlib
import importlib.util
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

AUTO = "transformers.models.auto.configuration_auto"


class _AfterAuto(MetaPathFinder):
    """Finds the module of AutoConfig as usual, and imports another one after it."""

    def __init__(self, module: str) -> None:
        self.module = module

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != AUTO:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(AUTO)
        if spec and spec.loader:
            execute = spec.loader.exec_module

            def exec_module(module: ModuleType) -> None:
                execute(module)
                importlib.import_module(self.module)

            spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


def register_models(module: str) -> None:
    """Imports a module as soon as transformers' Auto classes are imported.

    Args:
        module: Module that registers configurations when it is imported. It must not need AutoModel
            or `textdiff.hub`, which may be what imports transformers.
    """
    if AUTO in sys.modules:
        importlib.import_module(module)
    else:
        sys.meta_path.insert(0, _AfterAuto(module))
