"""visiondx: ask in words what a vision model is sensitive to, and see the answer.

    import visiondx as vx

    found = vx.diagnose(model, ["a face with bangs", "a smiling face"], "a face")
    vx.write_diagnosis(found, "out", title="What my model looks at")

The names below are imported when they are first used, for torch takes seconds.
"""

from importlib import import_module

__version__ = "0.1.0"

_PLACES = {
    "InputError": "core.errors",
    "Target": "models.target",
    "Encoder": "models.encoder",
    "StyleGenerator": "models.generator",
    "Painter": "models.painter",
    "Segmenter": "models.segmenter",
    "Photographs": "models.photographs",
    "project": "zoom.projection",
    "diagnose": "zoom.diagnose",
    "Diagnosis": "zoom.diagnose",
    "SearchSettings": "zoom.search",
    "Sensitivity": "zoom.sensitivity",
    "LossData": "llm2loss.data",
    "LossModel": "llm2loss.model",
    "embed": "llm2loss.cache",
    "explain": "diffexplainer.result",
    "Explanation": "diffexplainer.result",
    "ClassFolder": "dataset_interfaces.folders",
    "ClassTokens": "dataset_interfaces.tokens",
    "DatasetInterface": "dataset_interfaces.interface",
    "Inversion": "dataset_interfaces.inversion",
    "Shift": "dataset_interfaces.shifts",
    "ShiftedImages": "dataset_interfaces.shifted_images",
    "ask_models": "dataset_interfaces.answers",
    "measure": "dataset_interfaces.measure",
    "write_diagnosis": "show.report",
    "write_explanation": "show.explanation_report",
    "write_page": "show.page",
    "write_report": "show.report",
    "write_robustness": "show.robustness_report",
}
__all__ = ["__version__", *_PLACES]


def __getattr__(name: str) -> object:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = globals()[name] = getattr(import_module(f"{__name__}.{_PLACES[name]}"), name)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *_PLACES})
