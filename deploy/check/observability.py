"""Holds alerts, their tests, their runbook and the dashboards against each other.

    python deploy/check/observability.py
"""

import json
import re
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deploy/observability"


def anchor(heading):
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def metrics(query):
    """The names of the metrics in a query."""
    text = re.sub(r'"[^"]*"', "", query)
    text = re.sub(r"\{[^}]*\}|\[[^]]*\]|\b(by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)", "", text)
    return set(re.findall(r"\b[a-z_][a-z0-9_]*\b(?!\s*\()", text)) - {"and", "or", "unless", "bool"}


def known():
    """Those of docs/metrics.md, which tests of the services hold against a live scrape."""
    rows = re.findall(r"^\| `(\w+)` \| (\w+) ", (ROOT / "docs/metrics.md").read_text(), re.M)
    suffixes = {"histogram": ["_bucket", "_sum", "_count"]}
    foreign = {"up", "kube_deployment_status_replicas_available"}
    return foreign | {name + suffix for name, kind in rows for suffix in suffixes.get(kind, [""])}


def rules():
    groups = yaml.safe_load((FOLDER / "alerts.yml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def alerts():
    runbook = (ROOT / "docs/operations.md").read_text()
    entries = re.findall(r"^### (\w+)$", runbook.split("\n## Alerts\n")[1].split("\n## ")[0], re.M)
    names = {rule["alert"] for rule in rules()}
    for name in sorted(names.symmetric_difference(entries)):
        yield f"{name}: an alert without an entry in docs/operations.md, or the other way round"
    for rule in rules():
        if unknown := metrics(rule["expr"]) - known():
            yield f"{rule['alert']}: no such metric: {unknown}"
        if rule["annotations"]["runbook_url"] != f"docs/operations.md#{anchor(rule['alert'])}":
            yield f"{rule['alert']}: its runbook is elsewhere"
        if rule["labels"]["severity"] not in ("page", "ticket") or not rule["annotations"].get("summary"):
            yield f"{rule['alert']}: nobody knows how urgent it is, or what it says"

    tests = yaml.safe_load((FOLDER / "alerts.test.yml").read_text())["tests"]
    expected = [one for test in tests for one in test["alert_rule_test"]]
    fires = {one["alertname"] for one in expected if one.get("exp_alerts")}
    for name in sorted(names - fires):
        yield f"{name}: no test makes it fire"


def dashboards():
    for file in sorted((FOLDER / "dashboards").glob("*.json")):
        dashboard = json.loads(file.read_text())
        panels = [panel for panel in dashboard["panels"] if panel["type"] != "row"]
        if dashboard["uid"] != file.stem or len({panel["id"] for panel in dashboard["panels"]}) != len(dashboard["panels"]):
            yield f"{file.name}: its uid is not its name, or panels share an id"
        variables = [one["name"] for one in dashboard["templating"]["list"]]
        if variables != ["datasource", "namespace"] or not any(link["includeVars"] for link in dashboard["links"]):
            yield f"{file.name}: it does not choose a namespace, or leads to no other"
        # That for business people asks both.
        jobs = ["order-service", "activity-service"] if file.stem == "business" else [file.stem]
        for panel in panels:
            if not panel["description"] or panel["datasource"]["uid"] != "${datasource}":
                yield f"{file.name}: {panel['title']}: says nothing of itself, or asks a fixed data source"
            for target in panel["targets"]:
                selectors = re.findall(r"\{[^}]*\}", target["expr"])
                if not all(any(f'job="{job}"' in one for job in jobs) for one in selectors) or not selectors:
                    yield f"{file.name}: {panel['title']}: asks more than this service"
                if not all('namespace=~"$namespace"' in one for one in selectors):
                    yield f"{file.name}: {panel['title']}: asks other namespaces than the one that was chosen"
                # Every instance tells what its own cell's database has, and each cell has a namespace.
                if re.search(r"\bmax\(outbox_(unpublished|unowned|failed)_messages\b", target["expr"]):
                    yield f"{file.name}: {panel['title']}: of several cells it has the largest number, not all of them"
                if unknown := metrics(target["expr"]) - known():
                    yield f"{file.name}: {panel['title']}: no such metric: {unknown}"


def main():
    mistakes = [*alerts(), *dashboards()]
    for mistake in mistakes:
        print(mistake, file=sys.stderr)
    sys.exit(1 if mistakes else 0)


main()
