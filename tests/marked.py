"""Some patches of one kind of sample with both of their forms, as tests of forms and of torn pieces take them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from poscuda_fast import Key, Recipe
from poscuda_fast.kernels import Engine
from poscuda_fast.mark.codings import CODINGS, little, to_bytes
from poscuda_fast.mark.forms import Answer, Forms, Fresh
from poscuda_fast.mark.labels import name_token
from poscuda_fast.mark.marks import draw_marks
from poscuda_fast.mark.patches import Patches
from poscuda_fast.mark.stretches import Bytes, Stretches
from poscuda_fast.results import Tally

KEY = Key(bytes(range(32)))
LABELS = "yes", "no", "up"
RATE = 8_000
ENGINE = Engine("auto", 1)
TOP = {"PCM_16": 1 << 15, "PCM_24": 1 << 23}


def forms_of(recipe: Recipe) -> Forms:
    return Forms(KEY, draw_marks(KEY, [name_token(label) for label in LABELS], recipe, [RATE]), ENGINE)


def samples_of(kind: str, coding: str, n: int, seed: int = 0) -> np.ndarray:
    """Samples that are ordinary ("quiet"), that saturate ("loud"), or that float sums round ("odd")."""
    rng = np.random.default_rng(seed)
    if little(coding) == "FLOAT":
        samples = rng.normal(0, 0.1, n)
        if kind != "quiet":
            samples *= 10.0 ** rng.integers(-12, 4, n)
        samples = samples.astype(np.float32)
        if kind == "odd":
            bits = np.array(
                [0x8000_0000, 0x7FC0_0000, 0xFFC0_1234, 0x7F80_0001, 0x7F80_0000, 0xFF80_0000, 1, 0x7F7F_FFFF]
            )
            chosen = rng.random(n) < 0.3
            samples[chosen] = rng.choice(bits, int(chosen.sum())).astype(np.uint32).view(np.float32)
        return samples
    top = TOP[little(coding)]
    if kind == "quiet":
        return rng.integers(-top // 4, top // 4, n).astype(np.int32)
    extremes = np.array([-top, top - 1, -top + 1, top - 2, 0, -1])
    return np.where(rng.random(n) < 0.5, rng.choice(extremes, n), rng.integers(-top, top, n)).astype(np.int32)


@dataclasses.dataclass
class Scene:
    """Patches at some places of a file, their originals, and what a record says of them."""

    coding: str
    channels: int
    sizes: Sequence[int]  # frames
    firsts: Sequence[int]  # bytes in the file
    kind: str = "quiet"
    seed: int = 0
    recipe: Recipe = dataclasses.field(default_factory=Recipe.strong)
    computed: bool = True

    def __post_init__(self) -> None:
        n = np.arange(len(self.sizes), dtype=np.int64)
        patches = Patches(n, 37 * n + self.seed % 50, np.array(self.sizes, np.int64), n % len(LABELS))
        firsts = np.array(self.firsts, np.int64)
        self.stretches = Stretches(self.coding, self.channels, patches, firsts, self.computed)
        self.samples = samples_of(self.kind, self.coding, sum(self.sizes) * self.channels, self.seed)
        content = to_bytes(self.samples if self.coding != "PCM_16" else self.samples.astype(np.int16), self.coding)
        self.dry: Bytes = np.frombuffer(content, np.uint8).copy()
        assert len(self.dry) == self.stretches.n_bytes
        self.forms = forms_of(self.recipe)
        self.tally = Tally()
        before = self.dry.tobytes()
        self.fresh: Fresh = self.forms.fresh(self.dry, self.stretches, self.tally)
        assert self.dry.tobytes() == before
        self.wet = self.fresh.wet

    def examine(self, now: Bytes, torn: dict[int, bytes] | None = None) -> Answer:
        before = now.tobytes()
        answer = self.forms.examine(now, self.stretches, memoryview(self.fresh.content), torn or {})
        assert now.tobytes() == before
        return answer

    @property
    def parts(self) -> list[slice]:
        """Where each piece lies in a dense buffer."""
        return [self.stretches.pieces.of(n) for n in range(len(self.stretches.pieces.starts))]

    def cuts(self, part: slice) -> list[int]:
        """Bytes of a piece that a kernel may have stored when it was stopped: floats are stored at once."""
        if little(self.coding) != "FLOAT":
            return list(range(part.stop - part.start + 1))
        width = CODINGS[self.coding]
        return [
            0,
            *(k for k in range(1, part.stop - part.start) if (part.start + k) % width == 0),
            part.stop - part.start,
        ]

    def cut(self, part: slice, k: int, *, head_marked: bool) -> Bytes:
        """A piece of which the first `k` bytes are of one form, and the others of the other."""
        head, tail = (self.wet, self.dry) if head_marked else (self.dry, self.wet)
        return np.concatenate([head[part][:k], tail[part][k:]])
