"""Holds the sources against rules that no compiler knows: a public type's name is one type, a dependency is used, the
functions are there that the model stands for, and the example that people copy is short.

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
# Whoever begins a service reads all of it.
EXAMPLE, LONGEST = "shared/outbox/examples/parcels/src", 200
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


def modelled():
    """What a comment of the model names, as `Type::function` or `file::function`."""
    there = set()
    for path in (path for crate in ("shared/outbox", "order-service") for path in (ROOT / crate / "src").rglob("*.rs")):
        text = path.read_text()
        owners = {path.stem, *re.findall(r"^impl(?:<[^>]*>)? (?:\w+ for )?(\w+)", text, re.M)}
        there |= {(owner, function) for owner in owners for function in re.findall(r"\bfn (\w+)", text)}
    for path in sorted((ROOT / "model/src").glob("*.rs")):
        for named in re.findall(r"`(?!Bug::)(\w+)::(\w+)`", path.read_text()):
            if named not in there:
                yield f"{path.relative_to(ROOT)}: there is no {'::'.join(named)}"


def short():
    lines = sum(len(path.read_text().splitlines()) for path in (ROOT / EXAMPLE).glob("*.rs"))
    if lines > LONGEST:
        yield f"{EXAMPLE} has {lines} lines: what every service needs belongs into shared/src/process.rs"


def main():
    problems = [*of_nobody(), *modelled(), *short()]
    for crate in crates():
        problems += [*names(crate), *dependencies(crate)]
    print("\n".join(problems) or "names and dependencies are in order")
    return bool(problems)


if __name__ == "__main__":
    sys.exit(main())
