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
GROUP = re.compile(r"\$?crate::\{")
ONE = re.compile(r"\$?\bcrate::(\w+)")


def crates():
    members = tomllib.loads((ROOT / "Cargo.toml").read_text())["workspace"]["members"]
    return [ROOT / member for member in members if (ROOT / member / "src/lib.rs").exists()]


def of_group(text, start):
    """The first words of the parts of a group `{a::b, c::{d, e}}` that begins behind `start`."""
    depth, begins = 0, True
    for place in range(start, len(text)):
        sign = text[place]
        if sign == "{":
            depth += 1
        elif sign == "}":
            if depth == 0:
                return
            depth -= 1
        elif depth == 0 and sign == ",":
            begins = True
        elif depth == 0 and begins and (word := re.match(r"\w+", text[place:])):
            begins = False
            yield word[0]


def arrows(crate):
    source = crate / "src"
    rooms = {path.stem for path in source.glob("*.rs")} - {"lib", "main"}
    found = {room: set() for room in rooms}
    for path in source.rglob("*.rs"):
        room = path.relative_to(source).parts[0].removesuffix(".rs")
        if room not in rooms or path.name == "tests.rs":
            continue
        text = re.split(r"^#\[cfg\(test\)\]\nmod tests", path.read_text(), flags=re.M)[0]
        text = re.sub(r"//.*", "", text)
        used = {word for group in GROUP.finditer(text) for word in of_group(text, group.end())}
        found[room] |= (used | set(ONE.findall(text))) & rooms - {room}
    return found


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
    for crate in crates():
        name, found = crate.name, arrows(crate)
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
