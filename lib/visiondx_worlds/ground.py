"""What a diagnosis stands on: who draws, who reads, in what words, and who knows the truth.

An embedded generator draws a world whose truth is known: its renderer, its judges and the words of
its grammar belong to it. A generator and an encoder from files, of real photographs, have none of
that: words come from a list in ``data/prompts``, and the pictures are the evidence.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch

from visiondx.core.errors import InputError
from visiondx.core.files import data_dir, read_yaml, reading
from visiondx.core.words import check_list, lists, no_neutral, plain
from visiondx.models.encoder import Encoder
from visiondx.models.generator import StyleGenerator
from visiondx.models.target import Target
from visiondx.zoom.diagnose import try_on
from visiondx_worlds.marking.zoom.kept import Realism
from visiondx_worlds.marking.zoom.resistance import Jury
from visiondx_worlds.marking.zoom.truth import label_prompts
from visiondx_worlds.models.judges import Judges
from visiondx_worlds.worlds import animals, faces
from visiondx_worlds.worlds.base import World

OWN = "own"  # the name of a person's own target in tables and figures
WORLDS = {"faces": faces, "animals": animals}  # those that have a generator
NO_TRUTH = (
    "No world draws these pictures, so no truth is known: how often the edits show, to CLIP, and "
    "the pictures are the evidence."
)


@dataclass(frozen=True)
class Words:
    """Short names of attributes, and the phrases that they stand for.

    Attributes:
        neutral: what the phrases have in common. present, absent: name -> phrase; of some
            attributes alone the absence can be said.
    """

    neutral: str
    present: dict[str, str]
    absent: dict[str, str]

    @classmethod
    def read(cls, name: str) -> "Words":
        """A list in ``data/prompts``, such as "human_faces".

        Raises:
            InputError: no such list.
        """
        check_list(name)
        file, fix = data_dir() / "prompts" / f"{name}.yaml", "restore it with 'git checkout data'"
        found = read_yaml(file, fix)
        with reading(file, fix):
            rows = found["attributes"].items()
            absent = {name: row["absent"] for name, row in rows if "absent" in row}
            present = {name: row["present"] for name, row in rows}
            return cls(found["neutral"], present, absent)

    @classmethod
    def of(cls, world: World) -> "Words":
        """The plain phrases of a world's grammar."""
        sides = (
            {name: world.prompt(name, side) for name in world.binary} for side in (True, False)
        )
        return cls(world.grammar.neutral, *sides)


@dataclass(frozen=True)
class Ground:
    """A generator and an encoder, the words for its pictures, and its world if it has one."""

    generator: StyleGenerator
    encoder: Encoder
    words: Words
    world: World | None = None

    @classmethod
    def open(
        cls,
        generator: str = "faces",
        encoder: str = "embedded",
        encoder_weights: str = "",
        words: str = "",
    ) -> "Ground":
        """Load both, to the GPU if there is one.

        Args:
            generator: an embedded one, or a file, see ``StyleGenerator.load``.
            encoder, encoder_weights: see ``Encoder.load``.
            words: a list of ``lists()``; an embedded generator has its world's. Empty: no
                attribute has a short name.

        Raises:
            InputError: one of them cannot be loaded, or there is no such list of words.
        """
        where = "cuda" if torch.cuda.is_available() else "cpu"
        world = WORLDS.get(generator)
        said = Words.of(world) if world else Words.read(words) if words else Words("", {}, {})
        drawn = StyleGenerator.load(generator).to(where)
        return cls(drawn, Encoder.load(encoder, where, encoder_weights), said, world)

    def on(self, world: str) -> "Ground":
        """The same encoder on an embedded world, with its generator and its words."""
        drawn = StyleGenerator.load(world).to(self.device)
        return Ground(drawn, self.encoder, Words.of(WORLDS[world]), WORLDS[world])

    @property
    def device(self) -> torch.device:
        return self.generator.style_mean.device

    @cached_property
    def judges(self) -> Judges | None:
        """Those of the world; None where there is none."""
        return Judges.load(self.world.name, self.device) if self.world else None

    @property
    def neutral(self) -> str:
        """What the phrases have in common, "a face".

        Raises:
            InputError: no list of words says it.
        """
        if not self.words.neutral:
            raise no_neutral()
        return self.words.neutral

    @property
    def names(self) -> tuple[str, ...]:
        """The attributes that have a short name."""
        return tuple(self.words.present)

    def prompt(self, name: str) -> str:
        """The phrase of an attribute; what is a phrase already, of two words or more, is itself.

        Raises:
            InputError: a single word that is no name.
        """
        if name in self.words.present:
            return self.words.present[name]
        if " " not in name.strip():
            raise InputError(
                f"Unknown attribute {name!r}: write a whole phrase, or choose from "
                f"{', '.join(self.names) or 'a list, words=, of ' + ', '.join(lists())}."
            )
        return name

    def prompts(self, names: Sequence[str]) -> list[str]:
        """``prompt`` of each."""
        return [self.prompt(name) for name in names]

    def phrases(
        self, names: Sequence[str], number: int = 6, negated: bool = False
    ) -> list[tuple[list[str], list[str]]]:
        """Of each attribute, phrases with it and without, in which CLIP is asked what it sees.

        A world's are held out: neither the search nor the encoder's training saw them. A list of
        words has one a side.

        Args:
            number: phrases a side, of a world.
            negated: without says so ("a face with no hair over the forehead"), which an encoder may
                read badly; else it names nothing ("a face").

        Raises:
            InputError: no words say the absence of an attribute.
        """
        unsaid = [name for name in names if negated and name not in self.words.absent]
        if unsaid:
            raise InputError(f"There are no words for the absence of {', '.join(unsaid)}.")
        if not self.world:
            without = self.words.absent if negated else dict.fromkeys(names, self.neutral)
            return [([self.prompt(name)], [without[name]]) for name in names]

        def without(name: str, seed: int) -> str:
            if negated:
                return self.world.prompt(name, False, seed, heldout=True)
            return self.world.neutral(seed, heldout=True)

        seeds = range(number)
        return [
            (
                [self.world.prompt(name, True, seed, heldout=True) for seed in seeds],
                [without(name, seed) for seed in seeds],
            )
            for name in names
        ]

    def target(self, spec: str, task: str = "binary", class_index: int | None = None) -> Target:
        """See ``Target.load``; on the generator's device."""
        return Target.load(spec, task, class_index).to(self.device)

    def chosen(self, names: Sequence[str], own: str = "") -> list[str]:
        """The targets that are asked: one's own, or else the embedded ones of these names.

        Raises:
            InputError: no target of one's own, and no world whose embedded ones could be asked.
        """
        if own:
            return [own]
        if not self.world:
            raise InputError(
                "The embedded classifiers know the embedded worlds alone: name your own as "
                'target="path/to/file.py:function".'
            )
        return list(names)

    def targets(
        self, names: Sequence[str], own: str = "", tasks: Sequence[str] = ("binary",)
    ) -> dict[str, Target]:
        """The targets that are asked, see ``chosen``, by name; one's own from a file as ``OWN``.

        One's own is tried on a few images first, see ``Target.check``.

        Args:
            tasks: those that can be asked.

        Raises:
            InputError: as ``chosen`` and ``Target.load``; a target of another task; or one's own
                cannot be used.
        """
        found = {}
        for spec in self.chosen(names, own):
            made = self.target(spec, tasks[0])
            if made.task not in tasks:
                fix = "take of_class(k)" if made.task == "multiclass" else "choose another"
                raise InputError(
                    f"{spec} is a {made.task} target, asked is {' or '.join(tasks)}: {fix}."
                )
            found[OWN if ".py" in spec else spec] = made
        if OWN in found:
            try_on(found[OWN], self.generator)
        return found

    def jury(self, targets: Iterable[Target], renders: int = 2000) -> Jury | None:
        """Who says which flips of these targets are kept; None where nobody can.

        That is, without a world, or if its judges do not read what one of the targets tells.

        Args:
            renders: that say what is real, see ``Realism.fit``.
        """
        if not self.world or any(self.label(t) not in self.judges.binary for t in targets):
            return None
        return Jury(self.judges, Realism.fit(self.judges, self.world, n=renders))

    def caveats(self, targets: Mapping[str, Target]) -> list[str]:
        """What nobody can know here of these targets: sentences, none for embedded ones."""
        said = [] if self.world else [NO_TRUTH]
        for name, target in targets.items():
            label = self.label(target)
            if target.task != "binary":
                continue
            if self.world and label is None:
                said.append(
                    f"No judge reads what {name} tells, so nobody says which flips are kept."
                )
            if self.held(target) is None:
                what = f"what {name} tells" if label is None else f"the absence of {label!r}"
                said.append(f"No words are known for {what}, so nothing is held fixed (Eq. 8).")
        return said

    def label(self, target: Target) -> str | None:
        """The attribute that a target tells, if its card or its last label is a name here.

        Only of a binary one: keypoints and parts tell many things.
        """
        if target.task != "binary":
            return None
        said = target.config.get("label") or plain(target.labels[-1]).replace(" ", "_")
        return said if target.config.get("label") or said in self.words.present else None

    def held(self, target: Target) -> tuple[str, str] | None:
        """(present, absent) phrases of the target's own attribute, which Eq. 8 holds fixed.

        None where no words for both are known: then nothing is held.

        Raises:
            InputError: an embedded target of another world.
        """
        if self.world:
            label_prompts(self.world, target)  # refuses one of another world
        label = self.label(target)
        if label not in self.words.absent:
            return None
        return self.words.present[label], self.words.absent[label]
