"""Makes the page, the plots and the raw figures of what was measured.

    python3 dev/peers/report.py [--keep] RUNS OUT NAME...

RUNS has NAME.json of each measurement, as `bench` writes it. OUT gets README.md, results.json and plots. --keep takes
what OUT/results.json has of other measurements. The goals are those that the measurements carry.
"""

import datetime
import json
import os
import platform
import re
import subprocess
import sys
from pathlib import Path
from statistics import median

from charts import shown, svg

ROOT = Path(__file__).parents[2]
DEBEZIUM = ["Debezium as shipped", "Debezium tuned", "Debezium at its lowest latency"]
STREAMS = ["Kafka Streams as shipped", "Kafka Streams, a thread a core"]
RELAYS = ["order-service", "polling loop", *DEBEZIUM]
HIGHER, LOWER = "higher is better", "lower is better"


def each(names, text):
    return [(name, text.format(name)) for name in names]


# File, title, and panels: title, which direction is better, bars as (label, figure), the first of them ours.
PLOTS = {
    "relay": ("A backlog drained", [
        ("Rows a second", HIGHER, each(RELAYS, "{}, drained")),
        ("Rows a second from the start of the process", HIGHER, each(["order-service", *DEBEZIUM], "{}, from the start of its process")),
        ("CPU of 200,000 rows", LOWER, each(RELAYS, "{}, CPU of 200,000 rows")),
        ("CPU of Postgres meanwhile", LOWER, each(RELAYS, "{}, CPU of Postgres meanwhile")),
        ("Most resident memory", LOWER, each(["order-service", *DEBEZIUM], "{}, most resident memory")),
    ]),
    "drain": ("A large backlog drained", [
        ("Rows a second", HIGHER, each(["order-service", "polling loop"], "{}")),
    ]),
    "delay": ("Until a consumer has the message", [
        (f"{which} at {rate} messages a second", LOWER, each(["order-service", *DEBEZIUM], f"{{}}, {which} at {rate}/s"))
        for rate in (500, 2000) for which in ("p50", "p99")
    ]),
    "death": ("Kill -9 and a new process at once", [
        ("To the first message that was stored after it", LOWER, each(["order-service", "Debezium tuned"], "{}, from kill -9 to the first new message")),
        ("To the last message that was stored before it", LOWER, each(["order-service", "Debezium tuned"], "{}, to the last of those stored before")),
        ("Messages sent once more", LOWER, each(["order-service", "Debezium tuned"], "{}, messages sent once more")),
    ]),
    "days": ("Messages counted by type and day", [
        ("Messages a second", HIGHER, each(["activity-service", *STREAMS], "{}, counted")),
        ("Messages a second from the start of the process", HIGHER, each(["activity-service", *STREAMS], "{}, from the start of its process")),
        ("Most resident memory", LOWER, each(["activity-service", *STREAMS], "{}, most resident memory")),
    ]),
    "placing": ("Orders placed", [
        (f"Over {connections} connections", HIGHER, each(["POST /orders", "pgbench, single statement", "pgbench, TPC-B-like"], f"{{}}, {connections} connections"))
        for connections in (32, 128)
    ]),
    "producing": ("Written by librdkafka alone", [
        ("Messages a second", HIGHER, [("without compression", "rdkafka_performance"), ("lz4", "rdkafka_performance, lz4")]),
    ]),
    "before": ("Orders placed, now and by commit c7d43a1", [
        (f"{title} over {connections} connections", better, each(["order-service", "c7d43a1"], f"{{}}{figure}, {connections} connections"))
        for connections in (8, 32)
        for title, better, figure in (("Orders a second", HIGHER, ""), ("p99 of the answer", LOWER, ", p99 of the answer"))
    ]),
}

HOW = """## How

- One machine, one Postgres and one Kafka, both of `dev/with-stack`: nothing about them is tuned, `fsync` and
  `synchronous_commit` are on. `wal_level` is `logical` for all, because Debezium needs it: it costs the others some of
  their speed. Producers wait for all replicas (`acks=all`); there is one.
- Everything takes its turn in each round, right after the others, and every other round goes backwards. A figure is the
  median of the rounds; least and most stand beside it. One round decides nothing: what was measured in one has no verdict.
- order-service and activity-service run as they are shipped, but with `auth.mode` set to `disabled`: nobody asks the others
  who is there either.
- Debezium reads a table with the same references, keys and payloads, byte for byte, as order-service has in its outbox.
  order-service writes headers beside that (CloudEvents) and so does the polling loop; Debezium writes one, the id. Its
  rows are inserted 1,000 a transaction. It has a heap of 512 MB and the serial collector, as has Kafka Streams.
- Rows a second and CPU time of Debezium are those of a warm JVM: half as many rows come before those that are measured.
  What a start takes is in the figures "from the start of its process" alone. Rows a second of order-service include its
  marks in the database, and its CPU time is that of the whole process, its start and all.
- Delays of order-service begin when an order is due, HTTP, queues and commit included; those of Debezium when the commit of
  its row is answered. Debezium is warm for 5 s before, order-service for 1 s. The consumer is the same.
- After kill -9 a new process is started at once. Orders come again when order-service is ready; Debezium's rows go on
  coming. order-service waits `instance.takeover_after` (5 s by default) before it sends what the dead one has left.
- Kafka Streams counts exactly once (`exactly_once_v2`) into a topic, with its default commit interval of that mode, and
  activity-service into Postgres, with the key of each message. Both read the same topic.
- pgbench places the same orders, of two items with their message, by one statement each on the tables of commit c7d43a1,
  prepared, over loopback; nothing publishes them. TPC-B-like is its built-in transaction.
- Every run is checked, else it is void. Every row of order-service, of the polling loop and of Debezium is on the topic once
  by its reference, with its key and value, and of the first two where the acknowledgement said; headers are not compared.
  After a kill it is there at least once, by its order at order-service's, and how often more is told. Every answered order is
  there by its number, and each count of a day is that of the messages. What pgbench writes, orders and TPC-B-like
  transactions, is counted and no more, as are the messages that `rdkafka_performance` makes up.
- The settings of the peers lie in [dev/peers](../../dev/peers/), the measurements in [bench/src/peers](../../bench/src/peers/).
"""


def output(*command):
    try:
        return subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def found(pattern, text):
    match = re.search(pattern, text, re.M)
    return match[1].strip() if match else "unknown"


def machine():
    java = subprocess.run(["java", "-version"], capture_output=True, text=True, check=False).stderr
    lock = (ROOT / "Cargo.lock").read_text()
    return {
        "cores": len(os.sched_getaffinity(0)),
        "processor": found(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text()),
        "memoryGiB": round(int(found(r"^MemTotal: +(\d+)", Path("/proc/meminfo").read_text())) / 2**20, 1),
        "kernel": f"{platform.system()} {platform.release()}",
        "fdatasyncMicroseconds": int(os.environ.get("FDATASYNC_MICROSECONDS") or 0) or None,
        "versions": {
            "this": output("git", "describe", "--always", "--dirty", "--exclude=*"),
            "Rust": found(r"^rustc (\S+)", output("rustc", "--version")),
            "Postgres": found(r"([\d.]+)", os.environ.get("POSTGRES_VERSION", "")),
            "Kafka, Kafka Connect and Kafka Streams": os.environ.get("KAFKA_VERSION", "unknown"),
            "Debezium": found(r"<debezium.version>(.*)</", (ROOT / "dev/peers/pom.xml").read_text()),
            "librdkafka": found(r'name = "rdkafka-sys"\nversion = "[^+"]*\+([^"]*)"', lock),
            "Java": found(r'version "(.*)"', java),
        },
    }


def gather(runs, out, names, keep):
    before = out / "results.json"
    results = json.loads(before.read_text())["measurements"] if keep and before.exists() else {}
    here = machine()
    for name in names:
        file = runs / f"{name}.json"
        results.pop(name, None)
        if file.exists():
            # Runs of before were not held against key and value.
            results[name] = json.loads(file.read_text()) | {"machine": here, "bytesCompared": True}
    return {name: results[name] for name in PLOTS if name in results}


def figures(measurement):
    return {figure["name"]: figure for figure in measurement["figures"]}


def within(title):
    """A title inside a sentence: an abbreviation stays what it is."""
    return title if title[1].isupper() else title[0].lower() + title[1:]


def rounds(measurement):
    return len(measurement["figures"][0]["values"])


def ranged(figure):
    values = [figure["median"], figure["min"], figure["max"]]
    unit = f" {figure['unit']}" if figure["unit"] else ""
    median, least, most = map(shown, values)
    return f"{median}{unit}" + (f" ({least} to {most})" if len(figure["values"]) > 1 else "")


def verdict(figure, measurement):
    if rounds(measurement) < 2:
        return "open"
    return "met" if figure["met"] else "**missed**"


def goals(results):
    yield from ("| figure | goal | measured | rounds | |", "| --- | --- | --- | --- | --- |")
    for name, measurement in results.items():
        for figure in measurement["figures"]:
            if figure["aim"]:
                goal = re.sub(r"0\.0666\d*", "1/15", figure["aim"])
                cells = [f"[{figure['name']}](#{name})", goal, ranged(figure), str(rounds(measurement)), verdict(figure, measurement)]
                yield f"| {' | '.join(cells)} |"
    if any(rounds(measurement) < 2 for measurement in results.values()):
        yield from ("", "*Open*: there was one round, which decides nothing.")


def behind(results):
    """Where another one is better."""
    for name, measurement in results.items():
        by_name = figures(measurement)
        for title, better, bars in PLOTS[name][1]:
            if name == "producing":
                continue
            own = by_name[bars[0][1]]
            for label, figure in bars[1:]:
                other = by_name[figure]
                if other["median"] > own["median"] if better == HIGHER else other["median"] < own["median"]:
                    yield f"- [{PLOTS[name][0]}](#{name}), {within(title)}: {label} {ranged(other)}, {bars[0][0]} {ranged(own)}."


def with_postgres(results):
    """The goal for the CPU of a row is that of the process; what Postgres spends for it is spent too."""
    if "relay" not in results:
        return
    by_name = figures(results["relay"])
    goal = by_name["CPU a row to Debezium tuned"]["aim"]
    both = [[sum(of) for of in zip(by_name[f"{one}, CPU of 200,000 rows"]["values"], by_name[f"{one}, CPU of Postgres meanwhile"]["values"])]
            for one in ("order-service", "Debezium tuned")]
    ratio = median(own / other for own, other in zip(*both))
    if ratio > float(goal.split()[1]):
        own, other = map(median, both)
        yield (f"- [A backlog drained](#relay), CPU of 200,000 rows with that of Postgres: order-service {shown(own)} s, {shown(ratio)} of "
               f"Debezium tuned ({shown(other)} s); of the processes alone the goal is {goal}.")


def producing(results):
    """No relay: how much of what the client of Kafka can write is left when rows are read and marked."""
    if "producing" not in results or "drain" not in results:
        return
    alone, own = figures(results["producing"])["rdkafka_performance"], figures(results["drain"])["order-service"]
    yield (f"- [Written by librdkafka alone](#producing): rdkafka_performance {ranged(alone)}, which reads and marks no rows; "
           f"order-service drains {ranged(own)}, {shown(own['median'] / alone['median'])} of it.")


def losses(results):
    lines = [*behind(results), *with_postgres(results), *producing(results)]
    below = [(rounds(measurement), one["name"])
             for measurement in results.values() for one in measurement["figures"] if one["met"] is False]
    if missed := [name for count, name in below if count > 1]:
        lines.append(f"- {len(missed)} goals are missed: {'; '.join(missed)}.")
    if once := [name for count, name in below if count == 1]:
        lines.append(f"- {len(once)} goals were not reached in the one round there was: {'; '.join(once)}.")
    return lines or ["Nowhere."]


def plot(name, measurement):
    by_name = figures(measurement)
    title, wanted = PLOTS[name]
    panels = []
    for heading, better, bars in wanted:
        drawn = [(label, by_name[figure]["median"], by_name[figure]["min"], by_name[figure]["max"], number == 0 and name != "producing")
                 for number, (label, figure) in enumerate(bars)]
        panels.append((heading, f"{by_name[bars[0][1]]['unit']} ({better})", drawn))
    return svg(title, panels)


def where(measurement):
    """On which machine, with which versions and sources."""
    here = measurement["machine"]
    fdatasync = here["fdatasyncMicroseconds"]
    wait = f"a write of 8 kB and its fdatasync take {fdatasync} us" if fdatasync else "what fdatasync takes is not known"
    versions = ", ".join(f"{name} {version}" for name, version in here["versions"].items() if name != "this")
    return (f"{here['cores']} cores ({here['processor']}), {here['memoryGiB']} GiB, {here['kernel']}; {wait}. "
            f"{versions}. Sources: {here['versions']['this']}.")


def sections(results):
    places = {where(measurement) for measurement in results.values()}
    for name, measurement in results.items():
        count = rounds(measurement)
        load = ", ".join(f"{one:.2f}" for one in measurement["loadAverage"])
        about = measurement["about"].split("; tuned Debezium")[0]
        yield from (f"### {name}", "", f"{about[0].upper() + about[1:]}.", "")
        yield from (f"![{PLOTS[name][0]}]({name}.svg)", "")
        titles, keys = (["the one round"], ["median"]) if count == 1 else (["median", "least", "most"], ["median", "min", "max"])
        yield from (f"| | {' | '.join(titles)} |", f"| --- |{' --- |' * len(keys)}")
        for figure in measurement["figures"]:
            unit = f", {figure['unit']}" if figure["unit"] else ""
            yield f"| {figure['name']}{unit} | {' | '.join(shown(figure[key]) for key in keys)} |"
        yield from ("", f"{count} round{'s'[: count - 1]}, ended {measurement['endedAt'][:16].replace('T', ' ')} UTC; load average meanwhile: {load}.", "")
        if len(places) > 1:
            yield from (where(measurement), "")


def page(results):
    small = any(measurement["scale"] == "quick" for measurement in results.values())
    dates = sorted({measurement["endedAt"][:10] for measurement in results.values()})
    places = {where(measurement) for measurement in results.values()}
    place = places.pop() if len(places) == 1 else "each section says on which machine and of which sources: not all of it is of one go."
    counts = " or ".join(map(str, sorted({rounds(measurement) for measurement in results.values()})))
    yield from ("# What could be used instead, beside it", "")
    if small:
        yield from ("**This was a quick run of few and small measurements. Its figures mean nothing.**", "")
    yield from (
        "order-service and activity-service beside what one would take in their place, on the same rows; what is in one section",
        "was measured in one go, in turns. This page, its plots and [results.json](results.json), which has every single run, are",
        "made by `make peers`; no figure is written by hand.",
        "",
        f"{' to '.join([dates[0], dates[-1]] if len(dates) > 1 else dates)}, {counts} round{'' if counts == '1' else 's'}; {place}",
        "",
    )
    missing = [name for name in PLOTS if name not in results]
    yield from ("## Goals", "", *goals(results), "")
    if missing:
        yield from (f"Not measured: {', '.join(f'{name} ({within(PLOTS[name][0])})' for name in missing)}."
                    + (" What concerns commit c7d43a1 itself needs its binaries (`BASELINE_BIN_DIR`)." if "before" in missing else ""), "")
    yield from ("## Where it loses", "", *losses(results), "", *HOW.splitlines(), "")
    if before := [name for name, measurement in results.items() if not measurement.get("bytesCompared")]:
        yield from (f"When these were measured only Debezium's values were compared, the others were held against reference, partition and "
                    f"offset, and answers of before a kill against nothing: {', '.join(before)}.", "")
    yield from ("## Figures", "", *sections(results))


def main():
    arguments = [one for one in sys.argv[1:] if one != "--keep"]
    runs, out, names = Path(arguments[0]), Path(arguments[1]), arguments[2:]
    results = gather(runs, out, names, "--keep" in sys.argv)
    if not results:
        sys.exit("report: nothing was measured")
    (out / "results.json").write_text(json.dumps({"measurements": results}, indent=1) + "\n")
    for name in PLOTS:
        (out / f"{name}.svg").unlink(missing_ok=True)
    for name, measurement in results.items():
        (out / f"{name}.svg").write_text(plot(name, measurement))
    (out / "README.md").write_text("\n".join(page(results)).rstrip() + "\n")
    print(f"written: {out}/README.md")


if __name__ == "__main__":
    main()
