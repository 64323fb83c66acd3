"""What a word can be asked about in pictures of the worlds, and where it is: the segmenter's truth.

A thing is one meaning of some words ("mug", "cup"); its mask is the visible coverage of each pixel.
A world does not know every thing's place: where a scene has a dog, nobody says where its ears are.
There the truth is unknown, not absent.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from visiondx_worlds.worlds.animals import PATTERNS
from visiondx_worlds.worlds.base import Attributes, World
from visiondx_worlds.worlds.scenes import CLASSES, SUPERCLASSES
from visiondx_worlds.worlds.scenes_company import BESIDE, draw_beside, draw_clutter, draw_occluder
from visiondx_worlds.worlds.scenes_objects import draw_object
from visiondx_worlds.worlds.scenes_regions import regions
from visiondx_worlds.worlds.scenes_style import framed
from visiondx_worlds.worlds.sdf import circle, coordinates, coverage, steepness

# every thing, and the words that mean it
THINGS: dict[str, tuple[str, ...]] = {
    # the classes of scenes; animals has the first two as well
    "dog": ("dog", "hound", "puppy", "doggy", "house dog", "pet dog"),
    "cat": ("cat", "kitten", "kitty", "house cat", "pet cat"),
    "bird": ("bird", "songbird"),
    "fish": ("fish", "striped fish"),
    "rabbit": ("rabbit", "bunny"),
    "turtle": ("turtle", "tortoise"),
    "plate": ("plate", "dinner plate"),
    "mug": ("mug", "cup", "coffee mug"),
    "umbrella": ("umbrella", "parasol"),
    "car": ("car", "automobile"),
    "boat": ("boat", "sailing boat"),
    "chair": ("chair", "wooden chair"),
    "animal": ("animal", "small animal"),
    "furry animal": ("furry animal", "furry pet", "pet"),
    "wild animal": ("wild animal",),
    "tableware": ("tableware", "piece of tableware"),
    "vehicle": ("vehicle",),
    "household thing": ("household thing", "household object"),
    # what stands with them
    "harness": ("harness", "purple harness"),
    "food": ("food", "meal"),
    "tank": ("tank", "fish tank", "glass tank", "aquarium"),
    "steam": ("steam", "rising steam"),
    "person": ("person", "somebody"),
    "flower": ("flower", "blossom"),
    "box": ("box", "wooden box"),
    "ball": ("ball",),
    # where they are
    "sky": ("sky",),
    "wall": ("wall",),
    "floor": ("floor",),
    "grass": ("grass", "lawn", "meadow"),
    "sand": ("sand", "beach"),
    "forest": ("forest", "woods"),
    "water": ("water", "sea", "waves"),
    "road": ("road", "street", "asphalt"),
    "rocks": ("rocks", "stones"),
    "snow": ("snow",),
    # of people
    "man": ("man", "gentleman", "male person"),
    "woman": ("woman", "lady", "female person"),
    "face": ("face", "human face"),
    "hair": ("hair",),
    "hat": ("hat", "cap", "round hat"),
    "eyeglasses": ("eyeglasses", "glasses", "spectacles", "pair of glasses", "round glasses"),
    "earrings": ("earrings", "ear jewelry", "pair of earrings"),
    "eyebrows": ("eyebrows", "brows"),
    "beard": ("beard", "full beard"),
    "moustache": ("moustache", "mustache"),
    "mouth": ("mouth", "lips"),
    "lipstick": ("lipstick", "painted lips"),
    "clothes": ("clothes",),
    # of people and animals, or of animals alone
    "eyes": ("eyes",),
    "nose": ("nose",),
    "ears": ("ears",),
    "muzzle": ("muzzle", "snout"),
    "tongue": ("tongue",),
    "whiskers": ("whiskers",),
    "collar": ("collar",),
    "stripes": ("stripes",),
    "spots": ("spots",),
    "patches": ("patches",),
}
WORDS = tuple(word for words in THINGS.values() for word in words)
MEANING = {word: thing for thing, words in THINGS.items() for word in words}
LEAST = 4.0  # pixels of 64 x 64, at least half covered, that make a thing visible

_FUR = ("stripes", "spots", "patches")  # in the order of `_PATTERN`
_PATTERN = ("striped", "spotted", "patched")
_OF_HEADS = ("face", "hair", "eyebrows", "mouth", "clothes", "eyes", "nose", "ears")
_OF_ANIMALS = ("muzzle", "tongue", "whiskers", "collar", *_FUR)
_ANIMALS = CLASSES[:6]
_STATES = {"dog": "harness", "plate": "food", "fish": "tank", "mug": "steam"}


@dataclass(frozen=True)
class Truth:
    """Where the things of B pictures are, in the order of THINGS.

    masks: (B, T, H, W) visible coverage in [0, 1]. known: (B, T) whether the world tells; where
    not, the mask is 0 and means nothing.
    """

    masks: Tensor
    known: Tensor

    @property
    def present(self) -> Tensor:
        """(B, T) bool: known, and large enough to be seen."""
        height, width = self.masks.shape[2:]
        return self.known & ((self.masks >= 0.5).sum((2, 3)) >= LEAST * height * width / 64**2)

    @property
    def absent(self) -> Tensor:
        """(B, T) bool: known, and nowhere in the picture. Between the two nobody can say."""
        return self.known & (self.masks.amax((2, 3)) < 0.1)


def truth(world: World, attributes: Attributes, size: int | None = None) -> Truth:
    """Masks of every thing in the pictures that ``world.render(attributes, size)`` draws."""
    size = size or world.size
    parts = [_OF[world.name](world, some, size) for some in attributes.split(world.chunk)]
    return Truth(torch.cat([p[0] for p in parts]), torch.cat([p[1] for p in parts]))


def _assembled(masks: dict[str, Tensor], unknown: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Masks by thing, the others empty, and what is known, from {thing: (B,) bool unknown}."""
    like = next(iter(masks.values()))
    nothing, yes = torch.zeros_like(like), like.new_ones(len(like), dtype=torch.bool)
    known = torch.stack([~unknown[t] if t in unknown else yes for t in THINGS], 1)
    stacked = torch.stack([masks.get(t, nothing) for t in THINGS], 1)
    return stacked.clamp(0, 1), known


def _when(mask: Tensor, rows: Tensor) -> Tensor:
    return mask * rows[:, None, None]


def _scenes(world: World, a: Attributes, size: int) -> tuple[Tensor, Tensor]:
    u, v = coordinates(size, a.values)
    thing, front = draw_object(a, u, v), draw_occluder(a, u, v)
    beside, ball = draw_beside(a, u, v), draw_clutter(a, u, v)
    frame = framed(a, u, v)
    clear = frame * (1 - front.cover)
    behind = clear * (1 - thing.cover)
    far = behind * (1 - beside.cover)
    kind, company = a["class"].long(), a["beside"].long()

    def of(names: Iterable[str]) -> Tensor:
        index = torch.tensor([CLASSES.index(name) for name in names], device=kind.device)
        return torch.isin(kind, index)

    main = thing.main * clear
    groups = {**{name: (name,) for name in CLASSES}, **SUPERCLASSES, "animal": _ANIMALS}
    masks = {name: _when(main, of(members)) for name, members in groups.items()}
    masks |= {name: _when(thing.state * clear, of([k])) for k, name in _STATES.items()}
    masks |= {
        name: _when(beside.cover * behind, company == BESIDE.index(name)) for name in BESIDE[1:]
    }
    masks |= {"box": front.cover * frame, "ball": ball.cover * far}
    ground = far * (1 - ball.cover)
    masks |= {name: region * ground for name, region in regions(a, u, v).items()}
    creature, person = of(_ANIMALS), company == BESIDE.index("person")
    unknown = {name: creature for name in _OF_ANIMALS}
    unknown |= {name: creature | person for name in _OF_HEADS}
    unknown |= dict.fromkeys(("man", "woman"), person)
    return _assembled(masks, unknown)


def _ball(a: Attributes, parts: dict[str, Tensor], size: int) -> Tensor:
    """The ball behind a face or an animal's head."""
    u, v = coordinates(size, a.values)
    x, y, r, scale = (
        a[name][:, None, None] for name in ("clutter_x", "clutter_y", "clutter_size", "scale")
    )
    ball = coverage(circle(u[None], v[None], x, y, r), steepness(2 / size / scale))
    return ball * (1 - sum(parts.values()))


def _faces(world: World, a: Attributes, size: int) -> tuple[Tensor, Tensor]:
    parts = world.masks(a, size)
    whole, male = sum(parts.values()), a["male"] > 0.5
    face = ("face", "mouth", "nose", "eyes", "eyebrows", "moustache", "beard", "eyeglasses")
    masks = {name: part for name, part in parts.items() if name in THINGS}
    masks |= {
        "face": sum(parts[name] for name in face),
        "person": whole,
        "man": _when(whole, male),
        "woman": _when(whole, ~male),
        "lipstick": _when(parts["mouth"], a["lipstick"] > 0.5),
        "ball": _ball(a, parts, size),
    }
    return _assembled(masks, dict.fromkeys(("wall", "floor"), torch.ones_like(male)))


def _animals(world: World, a: Attributes, size: int) -> tuple[Tensor, Tensor]:
    parts = world.masks(a, size)
    whole, cat = sum(parts.values()), a["cat"] > 0.5
    masks = {name: parts[name] for name in ("eyes", "nose", "ears", "tongue", "whiskers", "collar")}
    masks |= {
        "cat": _when(whole, cat),
        "dog": _when(whole, ~cat),
        "animal": whole,
        "furry animal": whole,
        "muzzle": parts["muzzle"] + parts["nose"] + parts["mouth"],
        "ball": _ball(a, parts, size),
    }
    for name, pattern in zip(_FUR, _PATTERN, strict=True):
        masks[name] = _when(parts["pattern"], a["pattern"] == PATTERNS.index(pattern))
    unknown = ("wall", "floor", "face", "hair", "mouth")
    return _assembled(masks, dict.fromkeys(unknown, torch.ones_like(cat)))


_OF: dict[str, Callable[..., tuple[Tensor, Tensor]]] = {
    "scenes": _scenes,
    "faces": _faces,
    "animals": _animals,
}
