"""Builds each overlay with kustomize and holds it against the schemas of Kubernetes, what those do not
say (rules.py), and the services themselves, which have to accept its settings. Needs no cluster.

    python deploy/check/kubernetes.py PATH-OF-KUSTOMIZE FOLDER-OF-THE-SERVICES'-BINARIES
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import kubernetes_validate
import yaml

from rules import SERVICES, Overlay

ROOT = Path(__file__).parents[2]
# The oldest that has what is used (preStop.sleep), and the newest that there are schemas of.
VERSIONS = ["1.30", "1.37"]
# Of operators, which are no part of Kubernetes: a cluster without them refuses these kinds.
OF_OPERATORS = {
    ("monitoring.coreos.com/v1", "PodMonitor"),
    ("monitoring.coreos.com/v1", "PrometheusRule"),
    ("keda.sh/v1alpha1", "ScaledObject"),
}


def build(kustomize, folder):
    built = subprocess.run([kustomize, "build", folder], capture_output=True, text=True)
    # kustomize warns of what it will not know any more.
    if built.returncode or built.stderr:
        sys.exit(f"kustomize build {folder}: {built.stderr}")
    return list(yaml.safe_load_all(built.stdout))


def against_the_schemas(resource):
    if (resource["apiVersion"], resource["kind"]) in OF_OPERATORS:
        return
    for version in VERSIONS:
        try:
            kubernetes_validate.validate(resource, version, strict=True)
        except kubernetes_validate.ValidationError as error:
            yield f"Kubernetes {version}: {'.'.join(map(str, error.path))}: {error.message}"
        except kubernetes_validate.SchemaNotFoundError as error:
            yield error.message


# What docs/operations.md has people put into the secrets.
URL = "postgres://service@postgres/database?sslmode=verify-full"
URL_IN_CLEAR = "postgres://service@postgres/database"


def with_files(settings, folder, url):
    """The same, with files that are there in place of those that are mounted."""
    for name, value in settings.items():
        if name.endswith("_FILE"):
            file = Path(folder) / name
            file.write_text(url if name.endswith("__URL_FILE") else "secret")
            value = str(file)
        yield name, value


def as_the_service_reads_them(overlay, binaries):
    """`config` refuses a setting that it does not know, and one whose value does not fit."""
    for name in SERVICES:
        deployment, job = overlay.one("Deployment", name), overlay.job_of(name)
        prefix = name.replace("-", "_").upper()
        for workload, given in (deployment, overlay.settings(name)), (job, {f"{prefix}__AUTH__MODE": "disabled"}):
            settings = dict(given)
            for variable in workload["spec"]["template"]["spec"]["containers"][0].get("env", []):
                settings[variable["name"]] = variable["value"]
            allows_clear = settings.get(f"{prefix}__DATABASE__ALLOW_PLAINTEXT") == "true"
            with tempfile.TemporaryDirectory() as folder:
                environment = dict(with_files(settings, folder, URL_IN_CLEAR if allows_clear else URL))
                told = subprocess.run([binaries / name, "config"], env=environment, capture_output=True, text=True)
            # What it complains of it would not run with.
            if told.returncode or told.stderr:
                yield f"{overlay.name(workload)}: {name} refuses its settings: {told.stderr.strip()}"


def main():
    kustomize, binaries = sys.argv[1], Path(sys.argv[2])
    wrong = 0
    for folder in sorted((ROOT / "deploy/kubernetes/overlays").iterdir()):
        services, migrations = build(kustomize, folder), build(kustomize, folder / "migrations")
        overlay = Overlay(services, migrations)
        mistakes = [
            f"{overlay.name(one)}: a kind that a cluster without operators refuses"
            for one in overlay.all
            if (one["apiVersion"], one["kind"]) in OF_OPERATORS and not folder.name.endswith("-with-operators")
        ] + [
            f"{overlay.name(resource)}: {text}" for resource in overlay.all for text in against_the_schemas(resource)
        ]
        # What does not fit the schemas cannot be read any further.
        mistakes = mistakes or [*overlay.mistakes(), *as_the_service_reads_them(overlay, binaries)]
        for mistake in mistakes:
            print(f"{folder.name}: {mistake}", file=sys.stderr)
        wrong += len(mistakes)
        print(f"{folder.name}: {len(overlay.all)} resources, {len(mistakes)} mistakes")
    sys.exit(1 if wrong else 0)


main()
