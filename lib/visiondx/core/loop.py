"""What every training shares: resumable checkpoints, schedules, averages, and a stop on NaN.

A training hands its modules and optimizers to a `Trainer` and gives it one function, the step:

    trainer = Trainer("encoder", {"model": net}, {"adam": adam}, directory, config, seed=0)

    def step(i: int) -> dict[str, float]:
        set_learning_rate(adam, 1e-3 * cosine(i, total, warmup=200))
        terms = {"contrastive": loss_a, "auxiliary": 0.1 * loss_b}
        trainer.descend(adam, terms)        # checks, backward, step
        return {name: term.item() for name, term in terms.items()}

    finished = trainer.run(step, total)

`run` starts where the last checkpoint ended. Randomness inside a step comes from torch's global
generator, which is stored too, or from `step_seed(seed, i)`; either way an interrupted and resumed
run equals an uninterrupted one.
"""

import json
import math
import shutil
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, is_dataclass
from pathlib import Path

import pandas as pd
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn
from tqdm.auto import tqdm

from visiondx.core.errors import InputError
from visiondx.core.files import atomic_write, data_dir, reading


class Trainer:
    """Runs steps, logs them, and keeps ``checkpoint.safetensors`` and ``log.jsonl`` in a folder.

    Args:
        name: shown on the progress bar.
        modules: everything with weights or buffers that must survive an interruption.
        optimizers: their state is stored; hyperparameters come from the code, not the checkpoint.
        directory: where checkpoint and log go; made if missing.
        config: a dataclass or dict of JSON values. A checkpoint made with another one is refused.
        seed: seeds torch's global generator when nothing is resumed.
        save_seconds: wall-clock seconds between checkpoints (one is always written at the end).
        log_every: steps whose returned values are averaged into one entry of ``history``; fewer in
            a run so short that it would have less than twenty entries.

    Raises:
        InputError: the folder holds a checkpoint made with another config or seed, or a damaged
            one.
    """

    def __init__(
        self,
        name: str,
        modules: Mapping[str, nn.Module],
        optimizers: Mapping[str, torch.optim.Optimizer],
        directory: str | Path,
        config: object,
        *,
        seed: int = 0,
        save_seconds: float = 120.0,
        log_every: int = 50,
    ) -> None:
        self.name, self.seed = name, seed
        self.modules, self.optimizers = dict(modules), dict(optimizers)
        self.directory = Path(directory)
        self.save_seconds, self.log_every = save_seconds, log_every
        self.step = 0
        self.history: list[dict[str, float]] = []
        fields = asdict(config) if is_dataclass(config) else dict(config)
        # through JSON, so that tuples and integer keys compare equal after a round trip
        self._settings = json.loads(json.dumps({**fields, "run_seed": seed}))
        torch.manual_seed(seed)
        if self.checkpoint.is_file():
            self._resume()

    @property
    def checkpoint(self) -> Path:
        return self.directory / "checkpoint.safetensors"

    def run(
        self,
        step: Callable[[int], Mapping[str, float]],
        total: int,
        *,
        time_limit: float | None = None,
        every: Mapping[int, Callable[[int], None]] | None = None,
    ) -> bool:
        """Call ``step(i)`` for i from the current step up to ``total``; True when all are done.

        Args:
            time_limit: seconds after which it saves and returns False; call again to go on.
            every: ``{n: f}`` calls ``f(i)`` after each n steps and after the last, to draw samples.
        """
        started = saved = time.monotonic()
        period = max(1, min(self.log_every, total // 20))
        sums: dict[str, float] = {}
        count, since = 0, started
        with tqdm(total=total, initial=self.step, desc=self.name, mininterval=1.0) as bar:
            while self.step < total:
                for key, value in step(self.step).items():
                    check_finite(self.step, key, value)
                    sums[key] = sums.get(key, 0.0) + value
                count += 1
                self.step += 1
                now = time.monotonic()
                if self.step % period == 0 or self.step == total:
                    means = {key: value / count for key, value in sums.items()}
                    rate = {"steps_per_second": count / max(now - since, 1e-9)}
                    self.history.append({"step": self.step, **means, **rate})
                    bar.set_postfix({k: f"{v:.4g}" for k, v in means.items()}, refresh=False)
                    sums, count, since = {}, 0, now
                bar.update()
                for steps, function in (every or {}).items():
                    if self.step % steps == 0 or self.step == total:
                        function(self.step)
                late = time_limit is not None and now - started >= time_limit
                if self.step == total or late or now - saved >= self.save_seconds:
                    self.save()
                    saved = now
                if late:
                    break
        return self.step >= total

    def descend(self, optimizer: torch.optim.Optimizer, terms: Mapping[str, torch.Tensor]) -> None:
        """Minimise the sum of ``terms`` (scalars): check each for NaN, backward, one step."""
        for key, term in terms.items():
            check_finite(self.step, key, term.detach())
        optimizer.zero_grad(set_to_none=True)
        sum(terms.values()).backward()
        optimizer.step()

    def save(self) -> None:
        """Write the checkpoint (one file, renamed into place) and the log."""
        tensors = {"rng.cpu": torch.get_rng_state()}
        if torch.cuda.is_available():
            tensors["rng.cuda"] = torch.cuda.get_rng_state()
        for name, module in self.modules.items():
            for key, value in module.state_dict().items():
                tensors[f"module.{name}.{key}"] = value
        for name, optimizer in self.optimizers.items():
            for index, state in optimizer.state_dict()["state"].items():
                for key, value in state.items():
                    if value is not None:
                        tensors[f"optimizer.{name}.{index}.{key}"] = torch.as_tensor(value)
        # clone: safetensors refuses tensors that share memory, such as tied weights
        tensors = {key: value.detach().cpu().clone() for key, value in tensors.items()}
        tensors = {key: value.contiguous() for key, value in tensors.items()}
        about = {"step": self.step, "settings": self._settings, "history": self.history}
        with atomic_write(self.checkpoint) as path:
            save_file(tensors, path, {key: json.dumps(value) for key, value in about.items()})
        with atomic_write(self.directory / "log.jsonl") as path:
            path.write_text("".join(json.dumps(entry) + "\n" for entry in self.history))

    def _resume(self) -> None:
        with reading(self.checkpoint, "empty its folder, to train from the start"):
            with safe_open(self.checkpoint, framework="pt") as file:
                about = {key: json.loads(value) for key, value in file.metadata().items()}
                tensors = {key: file.get_tensor(key) for key in file.keys()}
            self._restore(about, tensors)

    def _restore(self, about: Mapping, tensors: Mapping[str, torch.Tensor]) -> None:
        stored = about["settings"]
        keys = sorted(stored.keys() | self._settings.keys())
        changed = [key for key in keys if stored.get(key) != self._settings.get(key)]
        if changed:
            raise InputError(
                f"{self.checkpoint} was made with another {', '.join(changed)}: "
                "use the same settings, or another checkpoint folder."
            )
        self.step, self.history = about["step"], about["history"]
        for name, module in self.modules.items():
            module.load_state_dict(_under(tensors, f"module.{name}."))
        for name, optimizer in self.optimizers.items():
            state: dict[int, dict[str, torch.Tensor]] = {}
            for key, value in _under(tensors, f"optimizer.{name}.").items():
                index, _, field = key.partition(".")
                state.setdefault(int(index), {})[field] = value
            groups = optimizer.state_dict()["param_groups"]
            optimizer.load_state_dict({"state": state, "param_groups": groups})
        torch.set_rng_state(tensors["rng.cpu"])
        if "rng.cuda" in tensors and torch.cuda.is_available():
            torch.cuda.set_rng_state(tensors["rng.cuda"])


def _under(tensors: Mapping[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    """Entries whose key starts with ``prefix``, without it."""
    return {k[len(prefix) :]: v for k, v in tensors.items() if k.startswith(prefix)}


def checkpoint_folder(name: str, out_dir: str | Path, keep: bool) -> Path:
    """Where a notebook's training lives.

    Args:
        keep: ``checkpoints/<name>/`` beside ``data/``, where an interrupted training goes on; else
            ``<out_dir>/first_steps/<name>/``, emptied, for a training that is only looked at.
    """
    if keep:
        return data_dir().parent / "checkpoints" / name
    folder = Path(out_dir) / "first_steps" / name
    shutil.rmtree(folder, ignore_errors=True)
    return folder


def read_log(directory: str | Path) -> pd.DataFrame:
    """The ``log.jsonl`` of a training: one row an entry, ``step`` and the mean of each loss term.

    Raises:
        InputError: there is no log yet, or a damaged one.
    """
    path = Path(directory) / "log.jsonl"
    if not path.is_file():
        raise InputError(f"No training log at {path}: train first.")
    with reading(path, "remove it: the next checkpoint writes it again"):
        return pd.DataFrame([json.loads(line) for line in path.read_text("utf-8").splitlines()])


def check_finite(step: int, term: str, value: float | torch.Tensor) -> None:
    """Raise FloatingPointError naming step and loss term unless ``value`` is finite."""
    if not math.isfinite(float(value)):
        raise FloatingPointError(f"Loss term '{term}' became {float(value)} at step {step}.")


def adamw(
    parameters: Iterable[nn.Parameter],
    lr: float,
    weight_decay: float,
    betas: tuple[float, float] = (0.9, 0.999),
) -> torch.optim.AdamW:
    """AdamW that lets matrices and kernels decay, but no norm, bias or scale."""
    parameters = list(parameters)
    groups = [
        {"params": [p for p in parameters if p.dim() > 1], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.dim() <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=lr, betas=betas)


def set_learning_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Give every parameter group ``lr``, times the group's own ``scale`` where it has one."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group.get("scale", 1.0)


def cosine(step: int, total: int, *, warmup: int = 0, final: float = 0.0) -> float:
    """Factor rising linearly over ``warmup`` steps, then falling as a half cosine to ``final``."""
    if step < warmup:
        return (step + 1) / warmup
    progress = min(1.0, (step - warmup) / max(1, total - warmup))
    return final + (1 - final) * 0.5 * (1 + math.cos(math.pi * progress))


def flat(step: int, *, warmup: int = 0) -> float:
    """Factor that rises linearly over ``warmup`` steps, then stays 1."""
    return min(1.0, (step + 1) / max(1, warmup))


def settling(step: int, total: int, settle: int, *, warmup: int = 0) -> float:
    """Factor that rises, stays 1, and falls as a half cosine over the last ``settle`` steps.

    Until then nothing depends on how many steps there are, so that a training can be lengthened.
    """
    start = max(0, total - settle)
    return flat(step, warmup=warmup) * cosine(max(0, step - start), total - start)


@torch.no_grad()
def update_average(average: nn.Module, model: nn.Module, decay: float, step: int) -> None:
    """average <- decay * average + (1 - decay) * model; young averages forget faster.

    The decay in use is min(decay, (1 + step) / (10 + step)). Buffers and integers are copied.
    """
    decay = min(decay, (1 + step) / (10 + step))
    targets, sources = list(average.parameters()), list(model.parameters())
    torch._foreach_lerp_(targets, sources, 1 - decay)
    for target, source in zip(average.buffers(), model.buffers(), strict=True):
        target.copy_(source)
