"""Holds the documents against the tree: what they name is there, and docs/guarantees.md says what is held.

    python3 dev/check/documents.py [--write]

--write writes docs/guarantees.md anew.
"""

import fnmatch
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
GUARANTEES = "docs/guarantees.md"
HEAD = """# Guarantees

What is held, and by what. This page is made of the sources: `python3 dev/check/documents.py --write`. A sentence stands
as `/// Holds: ...` at the test, or at the type, that it is about; others may hold it too.
"""


def tracked():
    """Also what is new and not ignored: a check before the commit sees what the commit will have."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.split("\0")
    return sorted(name for name in names if (ROOT / name).is_file())


FILES = tracked()
TEXT = {name: (ROOT / name).read_text() for name in FILES if name.endswith((".md", ".rs", ".patch")) or name == "Makefile"}
DOCUMENTS = [name for name in TEXT if name.endswith(".md") and name != "CHANGELOG.md"]

ITEM = re.compile(r"\s*(?:pub(?:\([^)]*\))? )?(?:async )?(?:const )?(?:fn|struct|enum) (\w+)")


def held(text):
    """The sentences of a file, each with the name of what it stands at."""
    found, sentence = [], None
    for line in text.splitlines():
        comment = re.match(r"\s*/// ?(.*)", line)
        if comment and comment[1].startswith("Holds: "):
            found.append(sentence := [comment[1].removeprefix("Holds: ")])
        elif comment and comment[1] and sentence:
            sentence.append(comment[1])
        elif comment:
            sentence = None
        else:
            sentence = None
            if item := ITEM.match(line):
                yield from ((" ".join(words), item[1]) for words in found)
                found = []
    yield from ((" ".join(words), None) for words in found)


def faults(text):
    """The variants that a model's enum of faults has, each with its sentence."""
    body = re.search(r"pub enum (?:Bug|Fault) \{(.*?)\n\}", text, re.S)[1]
    return re.findall(r"/// (.*)\n\s*(\w+),", body)


def seeded(name):
    what, caught = TEXT[name].splitlines()[:2]
    return what, caught.removeprefix("Caught by: ")


def guarantees():
    page = [HEAD]
    crates = {}
    for name in FILES:
        if name.endswith(".rs"):
            for sentence, item in held(TEXT[name]):
                crates.setdefault(name.split("/")[0], []).append(f"| {sentence} | `{name}`, `{item}` |")
    for crate, rows in crates.items():
        page += [f"## {crate}", "", "| | held by |", "| --- | --- |", *rows, ""]
    page += ["## The model", "", "`model/` explores the rules whole, and finds each of these faults when it is planted.", ""]
    page += ["| fault | what goes wrong with it |", "| --- | --- |"]
    for name in ("model/src/bug.rs", "model/src/announcing.rs"):
        page += [f"| `{variant}` | {sentence} |" for sentence, variant in faults(TEXT[name])]
    page += ["", "## Seeded bugs", "", "`make mutants` plants each in a copy of the sources; the test has to fail.", ""]
    page += ["| bug | what goes wrong with it | the test |", "| --- | --- | --- |"]
    for name in fnmatch.filter(FILES, "testing/seeded-bugs/*.patch"):
        what, caught = seeded(name)
        page.append(f"| `{Path(name).stem}` | {what} | {caught.replace(' ', ', ')} |")
    return "\n".join(page) + "\n"


def fresh():
    if TEXT.get(GUARANTEES) != guarantees():
        yield f"{GUARANTEES} is not what the sources say: python3 dev/check/documents.py --write"
    for name in FILES:
        if name.endswith(".rs") and any(item is None for _, item in held(TEXT[name])):
            yield f"{name}: a sentence that holds stands at nothing"
    for name in fnmatch.filter(FILES, "testing/seeded-bugs/*.patch"):
        crate, test = seeded(name)[1].split()
        if not is_test(crate, test):
            yield f"{name}: there is no test {test}"


def is_test(crate, test):
    *modules, function = test.split("::")
    folder = f"/{crate}/src" if crate == "shared" else f"/{crate}/tests/it"
    # Tests of a unit stand in its file, or in one beside it.
    units = [modules, modules[:-1]] if modules[-1] == "tests" else [modules]
    paths = tuple("/".join([folder, *unit]) + ".rs" for unit in units)
    return any(f"fn {function}(" in TEXT[one] for one in FILES if ("/" + one).endswith(paths))


def tests(name, text):
    """Tests that a document names as `CRATE module::name`."""
    for crate, test in re.findall(r"`(shared|order-service|activity-service) (\w+(?:::\w+)+)`", text):
        if not is_test(crate, test):
            yield f"{name}: there is no test {crate} {test}"


def there(path):
    """Whether the tree has it, wherever it lies: documents name the end of a path."""
    folder = path.endswith("/")
    pattern = path.rstrip("/") + ("/*" if folder else "")
    return any(fnmatch.fnmatch("/" + name, f"*/{pattern}") for name in FILES)


def paths(name, text):
    for path in re.findall(r"`([\w*./-]+(?:\.rs|\.py|/))`", text):
        if not path.startswith(("/", "target/", ".dev/", "https")) and not there(path):
            yield f"{name}: there is no {path}"
    for path, function in re.findall(r"`([\w/]+\.rs)`,\s+`(\w+)`", text):
        sources = [TEXT[one] for one in FILES if ("/" + one).endswith("/" + path)]
        if not any(re.search(rf"\b(?:fn|struct|enum) {function}\b", source) for source in sources):
            yield f"{name}: {path} has no {function}"


def anchors(text):
    headings = re.findall(r"^#+ (.+)$", text, re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def links(name, text):
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = ((ROOT / name).parent / path).resolve() if path else ROOT / name
        if not target.exists():
            yield f"{name}: its link {link} leads nowhere"
        elif anchor and anchor not in anchors(target.read_text()):
            yield f"{name}: {path or name} has no heading for #{anchor}"


def code(text):
    """What stands in a document as code: between backticks, or indented."""
    return re.findall(r"`([^`\n]+)`", text) + re.findall(r"^    +(.+)$", text, re.M)


def commands(name, text):
    targets = re.findall(r"^([a-z-]+):", TEXT["Makefile"], re.M)
    for line in code(text):
        for target in re.findall(r"(?:^|[;&|] *)make ([a-z-]+)", line):
            if target not in targets:
                yield f"{name}: there is no make {target}"
        for script in re.findall(r"(?:^|[\s$(])(dev/[\w/.-]*\w)", line):
            if script not in FILES and not there(script + "/"):
                yield f"{name}: there is no {script}"


SERVICES = ("order-service", "activity-service")


def hyphened(name):
    return re.sub(r"(?<!^)([A-Z])|_", lambda at: f"-{at[1] or ''}", name).lower()


@cache
def known(service):
    """What clap makes of a service's sources: its commands with those below each, and all options that any of them takes."""
    own, groups, options = {}, {}, {"help", "version"}
    for name in fnmatch.filter(TEXT, f"{service}/src/*") + fnmatch.filter(TEXT, "shared/src/*"):
        for enum, body in re.findall(r"Subcommand\)\]\n(?:pub )?enum (\w+) \{\n(.*?)\n\}", TEXT[name], re.S):
            variants = re.findall(r"^    (\w+)(?:\((?:\w+::)*(\w+)\))?", body, re.M)
            (own if name == f"{service}/src/main.rs" else groups)[enum] = variants
        for given, field in re.findall(r"#\[arg\((.*?)\)\]\s+(?:pub )?(\w+):", TEXT[name], re.S):
            if long := re.match(r'\s*long(?: = "([\w-]+)")?', given):
                options |= {long[1] or hyphened(field), *re.findall(r'alias = "([\w-]+)"', given)}
    below = {enum: [hyphened(name) for name, _ in variants] for enum, variants in groups.items()}
    return {hyphened(name): below.get(inner, []) for name, inner in own["Command"]}, options


def programs(name, text):
    """Commands of the services. Elsewhere than at the beginning a service's name may stand for something else."""
    call = re.compile(rf"(^|-- )?(?<![\w/.-])({'|'.join(SERVICES)}) (?=([a-z][a-z-]*)(?![\w:/.-])(.*))")
    for line in code(text):
        for begins, service, command, rest in call.findall(line):
            commands, options = known(service)
            if command not in commands:
                if begins is not None and (begins or line.startswith(service)):
                    yield f"{name}: {service} has no command {command}"
                continue
            rest = re.split(r"(?<!\\)\||&&|;|#", rest)[0]
            below = re.match(r" ([a-z-]+(?:\\\|[a-z-]+)*)", rest)
            for one in below[1].split("\\|") if below and commands[command] else []:
                if one not in commands[command]:
                    yield f"{name}: {service} {command} has no command {one}"
            for option in re.findall(r"(?<![\w-])--([a-z][a-z-]*)", rest):
                if option not in options:
                    yield f"{name}: {service} {command} has no option --{option}"


def targets():
    """A target of the Makefile that nobody can find."""
    for target, _ in re.findall(r"^([a-z-]+):.*## (.+)$", TEXT["Makefile"], re.M):
        if target != "help" and f"`make {target}`" not in TEXT["README.md"]:
            yield f"README.md does not say what make {target} does"


def main():
    if "--write" in sys.argv:
        (ROOT / GUARANTEES).write_text(guarantees())
        return 0
    problems = [*fresh(), *targets()]
    for name in DOCUMENTS:
        for check in (paths, links, commands, programs, tests):
            problems += check(name, TEXT[name])
    print("\n".join(problems) or f"{len(DOCUMENTS)} documents name what is there")
    return bool(problems)


if __name__ == "__main__":
    sys.exit(main())
