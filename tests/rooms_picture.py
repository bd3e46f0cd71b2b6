"""Draw the rooms of the package and the imports between them, for DESIGN.md:

python tests/rooms_picture.py
"""

from __future__ import annotations

from pathlib import Path
from xml.sax.saxutils import escape

from rooms import FLOOR_OF, FLOORS, FOR_ALL, PACKAGE, arrows

PICTURE = Path(__file__).parents[1] / "poscuda_fast" / "docs" / "rooms.svg"

# What a room holds, and the middle of its box. An arrow goes straight down from a room, and sideways only just above
# the floor that it leads to: `draw` refuses a column in which it would cross another room.
LEFT, LEFT_HALF, MIDDLE, RIGHT_HALF, RIGHT = 220, 370, 520, 670, 820
ROOMS = {
    "cli": ("the command line", LEFT_HALF),
    "reporting": ("the owner's private HTML page", LEFT_HALF),
    "__init__": ("the public names", MIDDLE),
    "adapters": ("Hugging Face, Parquet, Ray, ...", RIGHT),
    "evaluation": ("does it work on my clips?", LEFT),
    "ownership": ("was a model trained on them?", MIDDLE),
    "protector": ("batches in a framework's workers", RIGHT),
    "statement": ("a dated claim, before release", MIDDLE),
    "arrays": ("memory, GPU, .npy, Zarr", LEFT_HALF),
    "files": ("WAV, FLAC, ...: folders and files", RIGHT_HALF),
    "undo": ("crash safety, the sealed sidecar", MIDDLE),
    "mark": ("what is marked, and with what", MIDDLE),
    "key": ("the secret, and what it gives", LEFT_HALF),
    "kernels": ("C++, numba, CUDA, NumPy", RIGHT_HALF),
    "disk": ("durable writes, locks", LEFT_HALF),
    "recipe": ("how strong", 201),
    "results": ("reports and verdicts", 415),
    "secrecy": ("no secrets in tracebacks", 629),
    "errors": ("the exceptions", 843),
    "text": ("names as they are shown", 201),
    "attributes": ("rights, owner, times", 415),
    "interrupts": ("Ctrl-C that waits", 629),
    "system_errors": ("what the system refused", 843),
}
WIDTH, TOP, PITCH, BOX = 960, 14, 72, (248, 46)
BASE_PITCH, BASE_BOX = 56, (204, 46)
TURN = 8  # radius of an arrow's corners
APPROACH = 15  # from an arrow's level part to the room below
N_HIGH = sum(not FOR_ALL.issuperset(rooms) for rooms in FLOORS)

STYLE = """
    text { font-family: -apple-system, "Segoe UI", Helvetica, Arial, sans-serif; fill: #1f2328; text-anchor: middle; }
    .name { font: 600 15px ui-monospace, Menlo, Consolas, monospace; }
    .what, .note { font-size: 13px; fill: #57606a; }
    .floor { font-size: 15px; fill: #8c959f; }
    .note { text-anchor: start; }
    .room { fill: #ddf4ff; stroke: #54aeff; }
    .small { fill: #f6f8fa; stroke: #afb8c1; }
    .storey { fill: #f6f8fa; }
    .arrow { fill: none; stroke: #6e7781; stroke-width: 1.5; }
"""
NOTES = (
    "An arrow leads from a room to one that it imports. What lies further along the arrows, it may import too.",
    "All rooms above may import those of floors 1 and 0; these arrows are left out.",
)


def top_of(room: str) -> int:
    """The upper edge of a room's box."""
    high = FLOOR_OF[room] - (len(FLOORS) - N_HIGH)
    if high >= 0:
        return TOP + PITCH * (N_HIGH - 1 - high)
    return TOP + PITCH * N_HIGH + BASE_PITCH * (-1 - high)


def box(room: str) -> str:
    """A room."""
    what, x = ROOMS[room]
    y = top_of(room)
    width, height = BASE_BOX if room in FOR_ALL else BOX
    kind = "small" if room in FOR_ALL else "room"
    name = f"{room}/" if (PACKAGE / room).is_dir() else f"{room}.py"
    return (
        f'<rect class="{kind}" x="{x - width // 2}" y="{y}" width="{width}" height="{height}" rx="6"/>\n'
        f'<text class="name" x="{x}" y="{y + 20}">{name}</text>\n'
        f'<text class="what" x="{x}" y="{y + 37}">{escape(what)}</text>'
    )


def arrow(room: str, other: str) -> str:
    """An import."""
    x, end = ROOMS[room][1], ROOMS[other][1]
    y, last = top_of(room) + BOX[1], top_of(other) - 2
    for third in ROOMS:
        between = FLOOR_OF[other] < FLOOR_OF[third] < FLOOR_OF[room]
        if between and abs(ROOMS[third][1] - x) <= BOX[0] // 2:
            raise SystemExit(f"The arrow from {room} to {other} would cross {third}: move a room to another column.")
    if x == end:
        return f'<path class="arrow" marker-end="url(#tip)" d="M{x} {y}V{last}"/>'
    level, side = top_of(other) - APPROACH, TURN if end > x else -TURN
    way = f"M{x} {y}V{level - TURN}q0 {TURN} {side} {TURN}H{end - side}q{side} 0 {side} {TURN}V{last}"
    return f'<path class="arrow" marker-end="url(#tip)" d="{way}"/>'


def storey(number: int) -> str:
    """A floor: its number, and a band behind every second one."""
    y, height = top_of(FLOORS[number][0]), BOX[1]
    band = f'<rect class="storey" x="12" y="{y - 6}" width="{WIDTH - 24}" height="{height + 12}" rx="6"/>\n'
    return (band if number > 1 else "") + f'<text class="floor" x="46" y="{y + 28}">{number}</text>'


def draw() -> str:
    """The picture as SVG."""
    height = top_of(FLOORS[0][0]) + BASE_BOX[1] + 56
    notes = [f'<text class="note" x="99" y="{height - 32 + 18 * n}">{note}</text>' for n, note in enumerate(NOTES)]
    tip = '<marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="6" markerHeight="6" orient="auto">'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img">',
        "<title>The rooms of poscuda_fast by floor, and which imports which</title>",
        f"<style>{STYLE}</style>",
        f'<defs>{tip}<path d="M0 0L8 4L0 8z" fill="#6e7781"/></marker></defs>',
        f'<rect width="{WIDTH}" height="{height}" rx="8" fill="#ffffff"/>',
        *(storey(number) for number in range(len(FLOORS))),
        *(arrow(*pair) for pair in sorted(arrows())),
        *(box(room) for rooms in FLOORS for room in rooms),
        *notes,
        "</svg>\n",
    ]
    return "\n".join(parts)


if __name__ == "__main__":
    PICTURE.parent.mkdir(exist_ok=True)
    PICTURE.write_text(draw(), encoding="utf-8")
