"""Renders the chart with the examples' values and holds it against what the overlays make: the same resources, but for
what is the way of one of the two. Bad values have to be refused. Needs no cluster.

    python deploy/check/helm.py PATH-OF-HELM PATH-OF-KUSTOMIZE
"""

import re
import subprocess
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]
CHART = ROOT / "deploy/helm"
OVERLAYS = {
    "development": ["development"],
    "production": ["production"],
    "production-with-operators": ["production", "with-operators"],
}
REFUSED = [
    "orderService.colour=red",
    "orderService.settings.database\\.url=postgres://clerk@db/orders",
    "orderService.image.digest=latest",
    "orderService.replicas=many",
    "image.pullPolicy=Sometimes",
    "activityService.resources.requests.cpu=lots",
]


def helm(path, values, *more):
    files = [part for name in values for part in ("--values", CHART / f"examples/{name}.yaml")]
    command = [path, "template", "summarisation", CHART, "--kube-version", "1.30.0", *files, *more]
    return subprocess.run(command, capture_output=True, text=True)


def alike(resource):
    """Without what only one of the two has: hashes in names, hooks, marks that roll pods, the namespace."""
    resource["metadata"].pop("namespace", None)
    # An overlay gives its labels to everything it adds components to; they select nothing there.
    if resource["kind"] in ("Ingress", "ScaledObject", "PodMonitor", "PrometheusRule"):
        resource["metadata"].pop("labels", None)
    annotations = resource["metadata"].get("annotations", {})
    kept = {key: value for key, value in annotations.items() if not key.startswith("helm.sh/")}
    resource["metadata"]["annotations"] = kept
    if resource["kind"] == "ConfigMap":
        resource["metadata"]["name"] = without_hash(resource["metadata"]["name"])
    template = resource.get("spec", {}).get("template")
    if template:
        template["metadata"].pop("annotations", None)
        for container in template["spec"]["containers"]:
            for source in container.get("envFrom", []):
                source["configMapRef"]["name"] = without_hash(source["configMapRef"]["name"])
    return resource


def without_hash(name):
    return re.sub(r"-[a-z0-9]{10}$", "", name)


def by_name(texts):
    found = [one for text in texts for one in yaml.safe_load_all(text) if one]
    return {(one["kind"], alike(one)["metadata"]["name"]): one for one in found if one["kind"] != "Namespace"}


def differences(mine, other, path=""):
    if isinstance(mine, dict) and isinstance(other, dict):
        for key in sorted({*mine, *other}):
            yield from differences(mine.get(key), other.get(key), f"{path}.{key}")
    elif mine != other:
        yield f"{path}: {str(mine)[:200]} in the chart, {str(other)[:200]} in the overlay"


def main():
    path, kustomize = sys.argv[1:]
    wrong = []
    for overlay, values in OVERLAYS.items():
        rendered = helm(path, values)
        if rendered.returncode:
            sys.exit(f"helm template {overlay}: {rendered.stderr}")
        folder = ROOT / "deploy/kubernetes/overlays" / overlay
        built = [
            subprocess.run([kustomize, "build", one], capture_output=True, text=True, check=True).stdout
            for one in (folder, folder / "migrations")
        ]
        chart, overlays = by_name([rendered.stdout]), by_name(built)
        if ("ScaledObject", "activity-service") in chart:
            # The chart leaves the number to KEDA.
            overlays["Deployment", "activity-service"]["spec"].pop("replicas")
        for name in sorted({*chart, *overlays}):
            for text in differences(chart.get(name), overlays.get(name)):
                wrong.append(f"{overlay}: {' '.join(name)}{text}")
        print(f"{overlay}: {len(chart)} resources of the chart")
    wrong += [f"{value} is not refused" for value in REFUSED if not helm(path, ["production"], "--set", value).returncode]
    # A further cell has nothing of activity-service.
    cell = helm(path, ["production", "with-operators", "cell"], "--set", "httpRoute.enabled=true")
    wrong += [cell.stderr] if cell.returncode else []
    wrong += [f"of a cell: {line}" for line in cell.stdout.splitlines() if "name: activity" in line or "activity-url" in line]
    taken = ("host: summarisation.example", "host: orders.summarisation.example", "hostnames: [summarisation.example]")
    wrong += [f"a cell has the name of another one, {text}" for text in taken if text in cell.stdout]
    for text in ('ORDER_SERVICE__CELL__NUMBER: "2"\n', 'ORDER_SERVICE__CELL__COUNT: "10"\n', "host: cell-2.summarisation.example\n"):
        wrong += [] if text in cell.stdout else [f"the chart of a cell does not say {text}"]
    digest = "sha256:" + "0" * 64
    more = ["--set", f"image.registry=registry.example,orderService.image.digest={digest},monitoring.rules=true"]
    more += ["--set", "httpRoute.enabled=true,httpRoute.figuresHost=figures.example"]
    told = helm(path, ["production"], *more, "--set", "monitoring.runbooks=https://wiki.example/runbooks").stdout
    for text in (
        f"image: registry.example/summarisation/order-service@{digest}\n",
        "runbook_url: https://wiki.example/runbooks#servicedown\n",
        "path: {type: PathPrefix, value: /completeness}\n",
        "hostnames: [figures.example]\n",
    ):
        wrong += [] if text in told else [f"the chart does not say {text}"]
    linted = subprocess.run([path, "lint", "--strict", "--kube-version", "1.30.0", CHART], capture_output=True, text=True)
    wrong += [linted.stdout] if linted.returncode else []
    sys.exit("\n".join(wrong) or None)


main()
