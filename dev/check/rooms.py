"""The rooms of each crate (its files and folders), the arrows between them, the floors they stand on, and the circles.

    python3 dev/check/rooms.py            a line a crate; fails where there is a circle
    python3 dev/check/rooms.py --draw     the floors too: a room uses only those on floors below its own

A file and the folder of its name are one room, within which both may use each other; the files of that folder are rooms
of their own, and so on down. A room uses one beside it by a path that leads into it, `crate::room` or `super::room`, or
by a name that a file above takes out of it. What tests use does not count.
"""

import re
import sys
import tomllib
from collections import defaultdict
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
PATH = re.compile(r"(?<![\w:])\$?(?=(?:crate|super|self)::)")
USE = re.compile(r"^\s*(?:pub(?:\([^)]*\))? )?use ", re.M)
# The state that is explored is made of parts, and each part says what it does to the whole.
ONE_ROOM = {"model"}
OF_TESTS = re.compile(r"^#\[cfg\(test\)\]\n(?:pub )?mod (\w+);", re.M)


def houses():
    """Each crate and each example of several files: its name and the file at its root."""
    for member in tomllib.loads((ROOT / "Cargo.toml").read_text())["workspace"]["members"]:
        crate = ROOT / member
        if crate.name in ONE_ROOM:
            continue
        roots = [path for name in ("lib.rs", "main.rs") if (path := crate / "src" / name).exists()]
        yield crate.name, roots[0]
        for example in sorted(crate.glob("examples/*/main.rs")):
            yield f"{crate.name}, example {example.parent.name}", example


def paths(text, at):
    """The paths of which a text has the beginning here, `a::b` or `a::{b, c::{d, e as f}}`: the words of each."""
    if text[at] == "{":
        depth, begins = 0, True
        for place in range(at + 1, len(text)):
            sign = text[place]
            if begins and (sign.isalnum() or sign in "_*"):
                begins = False
                yield from paths(text, place)
            elif sign == "{":
                depth += 1
            elif sign == "}":
                if depth == 0:
                    return
                depth -= 1
            elif depth == 0 and sign == ",":
                begins = True
        return
    word = re.match(r"\w+", text[at:])
    if not word:
        return
    after = at + word.end()
    if text[after : after + 2] == "::":
        further = list(paths(text, after + 2))
        yield from ([word[0], *rest] for rest in further)
        if further:
            return
    alias = re.match(r" as (\w+)", text[after:])
    yield [word[0], "as", alias[1]] if alias else [word[0]]


class House:
    def __init__(self, root):
        """Its files, by the path of the module: `("http", "server")`."""
        self.text = {(): self.of_file(root)}
        of_tests = set()
        for path in sorted(root.parent.rglob("*.rs")):
            module = path.relative_to(root.parent).with_suffix("").parts
            if module not in (("lib",), ("main",)):
                self.text[module] = self.of_file(path)
            above = () if path == root else module
            of_tests |= {(*above, name) for name in OF_TESTS.findall(path.read_text())}
        for module in list(self.text):
            if any(module[: len(tests)] == tests for tests in of_tests):
                del self.text[module]

    @staticmethod
    def of_file(path):
        text = re.split(r"^#\[cfg\(test\)\]\nmod tests \{", path.read_text(), flags=re.M)[0]
        return re.sub(r"//.*", "", text)

    @cache
    def names(self, module):
        """What a file has taken in by `use`: by each name, the words of the path."""
        found = {}
        for use in USE.finditer(self.text[module]):
            for words in paths(self.text[module], use.end()):
                name = words[-2] if words[-1] == "self" else words[-1]
                found[name] = words[:-2] if "as" in words else words
        return found

    def leads_to(self, module, words, seen=()):
        """The file that has what a path in the file of `module` names; None where that is in another crate."""
        words = list(words)
        if words[0] in ("crate", "super", "self"):
            at = () if words[0] == "crate" else module[:-1] if words[0] == "super" else module
            words.pop(0)
        elif (*module, words[0]) in self.text:
            at = module
        else:
            return None
        for word in words:
            if word == "super":
                at = at[:-1]
            elif (*at, word) in self.text:
                at = (*at, word)
            elif word in (names := self.names(at)) and (at, word) not in seen:
                return self.leads_to(at, names[word], (*seen, (at, word))) or at
            else:
                return at
        return at

    def arrows(self):
        """Of each folder's rooms, those beside it that each uses."""
        found = defaultdict(dict)
        for module in self.text:
            if module:
                found[module[:-1]][module[-1]] = set()
        for module, text in self.text.items():
            for here in PATH.finditer(text):
                for words in paths(text, here.end()):
                    other = self.leads_to(module, words)
                    same = next((at for at, (a, b) in enumerate(zip(module, other)) if a != b), None)
                    if same is not None:
                        found[module[:same]][module[same]].add(other[same])
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
    in_one = [room for room in found if room in reach[room]]
    around = {frozenset(other for other in reach[room] if room in reach[other]) for room in in_one}
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
    for name, root in houses():
        folders = House(root).arrows()
        around = {folder: circles(found) for folder, found in folders.items()}
        print(f"{name}: {sum(map(len, folders.values()))} rooms, "
              f"{sum(len(others) for found in folders.values() for others in found.values())} arrows, "
              f"{sum(map(len, around.values()))} circles")
        for folder, found in sorted(folders.items()):
            where = "/".join((name, *folder))
            if "--draw" in sys.argv and len(found) > 1:
                floor = floors(found)
                print(f"  {where}")
                for height in range(max(floor.values()), 0, -1):
                    print(f"    {height}: {', '.join(sorted(room for room in floor if floor[room] == height))}")
            for circle in around[folder]:
                problems.append(f"{where}: rooms that use each other: {', '.join(circle)}")
                problems += [f"    {room} uses {', '.join(sorted(found[room] & set(circle)))}" for room in circle]
    print("\n".join(problems) or "no room uses one that uses it")
    return bool(problems)


if __name__ == "__main__":
    sys.exit(main())
