"""The rooms of each crate (its files and folders), the arrows between them, the floors they stand on, and the circles.

    python3 dev/check/rooms.py            a line a crate; fails where there is a circle
    python3 dev/check/rooms.py --draw     the floors too: a room uses only those on floors below its own

A room uses another one by `use crate::room`. What tests use does not count.
"""

import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
CRATE = re.compile(r"(?<![\w:])\$?crate::")


def crates():
    members = tomllib.loads((ROOT / "Cargo.toml").read_text())["workspace"]["members"]
    return [ROOT / member for member in members if (ROOT / member / "src/lib.rs").exists()]


def used(text, at, folders):
    """The rooms that the path or the group at this place of a text begins with, `a::b` or `{a::b, c::{d, e}}`. The
    words of a folder of rooms lead into it."""
    if text[at] != "{":
        word = re.match(r"\w+", text[at:])
        if not word:
            return
        after = at + word.end()
        if word[0] in folders and text[after : after + 2] == "::":
            yield from used(text, after + 2, folders)
        else:
            yield word[0]
        return
    depth, begins = 0, True
    for place in range(at + 1, len(text)):
        sign = text[place]
        if begins and (sign.isalnum() or sign == "_"):
            begins = False
            yield from used(text, place, folders)
        elif sign == "{":
            depth += 1
        elif sign == "}":
            if depth == 0:
                return
            depth -= 1
        elif depth == 0 and sign == ",":
            begins = True


def is_folder(path):
    """A file that has nothing but rooms."""
    lines = [line for line in path.read_text().splitlines() if line and not line.startswith("//")]
    return all(line.startswith("pub mod ") for line in lines)


def arrows(crate):
    """Of each room, those that it uses; and of each folder of rooms, the folders."""
    source = crate / "src"
    top = {path.stem for path in source.glob("*.rs") if path.stem not in ("lib", "main")}
    folders = {name for name in top if is_folder(source / f"{name}.rs")}
    inside = {path.stem: name for name in folders for path in (source / name).glob("*.rs")}
    rooms = top - folders | set(inside)
    found = {room: set() for room in rooms}
    for path in source.rglob("*.rs"):
        parts = [part.removesuffix(".rs") for part in path.relative_to(source).parts]
        room = parts[1] if parts[0] in folders and len(parts) > 1 else parts[0]
        if room not in rooms or path.name == "tests.rs":
            continue
        text = re.split(r"^#\[cfg\(test\)\]\nmod tests", path.read_text(), flags=re.M)[0]
        text = re.sub(r"//.*", "", text)
        names = {name for here in CRATE.finditer(text) for name in used(text, here.end(), folders)}
        found[room] |= names & rooms - {room}
    between = {name: set() for name in folders}
    for room, others in found.items():
        if room in inside:
            between[inside[room]] |= {inside[other] for other in others if other in inside} - {inside[room]}
    return found, between


def reached(found, room):
    seen, left = set(), [room]
    while left:
        for other in found[left.pop()] - seen:
            seen.add(other)
            left.append(other)
    return seen


def circles(found):
    reach = {room: reached(found, room) for room in found}
    around = {frozenset(other for other in reach[room] if room in reach[other]) for room in found if room in reach[room]}
    return sorted(sorted(circle) for circle in around)


def floors(found):
    """Rooms of a circle stand on one floor."""
    around = {room: frozenset(circle) for circle in circles(found) for room in circle}
    floor = {}

    def of(room):
        if room not in floor:
            own = around.get(room, {room})
            below = {other for one in own for other in found[one]} - set(own)
            height = 1 + max((of(other) for other in below), default=0)
            floor.update(dict.fromkeys(own, height))
        return floor[room]

    for room in found:
        of(room)
    return floor


def main():
    problems = []
    drawn = []
    for crate in crates():
        rooms, folders = arrows(crate)
        drawn.append((crate.name, rooms))
        if folders:
            drawn.append((f"{crate.name}, its folders", folders))
    for name, found in drawn:
        floor, around = floors(found), circles(found)
        print(f"{name}: {len(found)} rooms, {max(floor.values())} floors, "
              f"{sum(map(len, found.values()))} arrows, {len(around)} circles")
        if "--draw" in sys.argv:
            for height in range(max(floor.values()), 0, -1):
                print(f"  {height}: {', '.join(sorted(room for room in floor if floor[room] == height))}")
        for circle in around:
            problems.append(f"{name}: rooms that use each other: {', '.join(circle)}")
            problems += [f"    {room} uses {', '.join(sorted(found[room] & set(circle)))}" for room in circle]
    print("\n".join(problems) or "no room uses one that uses it")
    return bool(problems)


if __name__ == "__main__":
    sys.exit(main())
