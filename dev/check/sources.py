"""Holds the sources against rules that no compiler knows: a public type's name is one type, a dependency is used.

    python3 dev/check/sources.py
"""

import re
import sys
import tomllib
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).parents[2]
# Each module that has settings, and each file that has one main row, calls them so: the module's name comes before it.
SAID_WITH_THEIR_MODULE = {"Settings", "Row"}
PUBLIC_TYPE = re.compile(r"^ *pub(?:\([^)]*\))? (?:struct|enum|trait|type|union) (\w+)", re.M)


def crates():
    members = tomllib.loads((ROOT / "Cargo.toml").read_text())["workspace"]["members"]
    return [ROOT / member for member in members]


def sources(crate):
    inner = [path.parent for path in crate.rglob("Cargo.toml") if path.parent != crate]
    for path in sorted(crate.rglob("*.rs")):
        if not any(folder in path.parents for folder in inner):
            yield path


def names(crate):
    where = defaultdict(list)
    for path in sources(crate):
        if path.is_relative_to(crate / "src"):
            for name in PUBLIC_TYPE.findall(path.read_text()):
                where[name].append(str(path.relative_to(ROOT)))
    for name in sorted(where.keys() - SAID_WITH_THEIR_MODULE):
        if len(where[name]) > 1:
            yield f"{crate.name}: {len(where[name])} public types are called {name}: {', '.join(where[name])}"


def dependencies(crate):
    manifest = tomllib.loads((crate / "Cargo.toml").read_text())
    text = "\n".join(path.read_text() for path in sources(crate))
    for kind in ("dependencies", "dev-dependencies", "build-dependencies"):
        for name in manifest.get(kind, {}):
            if not re.search(rf"\b{name.replace('-', '_')}\b", text):
                yield f"{crate.name}: nothing uses its dependency {name}"


def of_nobody():
    wanted = tomllib.loads((ROOT / "Cargo.toml").read_text())["workspace"]["dependencies"]
    manifests = [tomllib.loads((crate / "Cargo.toml").read_text()) for crate in crates()]
    used = {name for one in manifests for kind in one if kind.endswith("dependencies") for name in one[kind]}
    yield from (f"Cargo.toml: no crate asks for {name}" for name in sorted(wanted.keys() - used))


def main():
    problems = list(of_nobody())
    for crate in crates():
        problems += [*names(crate), *dependencies(crate)]
    print("\n".join(problems) or "names and dependencies are in order")
    return bool(problems)


if __name__ == "__main__":
    sys.exit(main())
