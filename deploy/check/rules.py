"""What an overlay has to keep and no schema knows: names that have to meet, sums that have to fit, and what
our pods promise."""

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
SERVICES = ["order-service", "activity-service"]
NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
QUANTITY = re.compile(r"\d+(\.\d+)?(m|[kMGT]i?|Ki)?")
# Values that the schemas take for any text.
CHOICES = {
    "whenUnsatisfiable": {"DoNotSchedule", "ScheduleAnyway"},
    "restartPolicy": {"Always", "OnFailure", "Never"},
    "protocol": {"TCP", "UDP"},
    "operator": {"In", "NotIn", "Exists", "DoesNotExist"},
    "unhealthyPodEvictionPolicy": {"AlwaysAllow", "IfHealthyBudget"},
    "topologyKey": {"kubernetes.io/hostname", "topology.kubernetes.io/zone"},
}
# What order-service needs to hand over what it could not send.
HAND_OVER = 1
# How long /health/ready waits for a connection of the pool.
READY_WITHIN = 2


def seconds(duration):
    number, unit = re.fullmatch(r"(\d+)(ms|s|m|h|d)", duration).groups()
    return int(number) * {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}[unit]


def everything(value, path=()):
    yield path, value
    for key, child in value.items() if isinstance(value, dict) else enumerate(value if isinstance(value, list) else []):
        yield from everything(child, (*path, key))


def selects(selector, labels):
    for wanted in selector.get("matchExpressions", []):
        if (labels.get(wanted["key"]) in wanted["values"]) != (wanted["operator"] == "In"):
            return False
    return all(labels.get(key) == value for key, value in selector.get("matchLabels", {}).items())


class Overlay:
    def __init__(self, services, migrations):
        self.all = services + migrations
        self.workloads = [one for one in self.all if one["kind"] in ("Deployment", "Job")]

    @staticmethod
    def name(resource):
        return f"{resource['kind']} {resource['metadata']['name']}"

    def of(self, kind):
        return [one for one in self.all if one["kind"] == kind]

    def one(self, kind, name):
        [found] = [one for one in self.of(kind) if one["metadata"]["name"] == name]
        return found

    def settings(self, service):
        """What the ConfigMap of a service sets, by the names of the environment."""
        container = self.one("Deployment", service)["spec"]["template"]["spec"]["containers"][0]
        return self.one("ConfigMap", container["envFrom"][0]["configMapRef"]["name"])["data"]

    def job_of(self, service):
        """The Job that brings a service's schema up to date, by the image."""
        def image(job):
            return job["spec"]["template"]["spec"]["containers"][0]["image"]

        [found] = [job for job in self.of("Job") if f"/{service}:" in image(job) or f"/{service}@" in image(job)]
        return found

    def setting(self, service, key):
        # The outbox has defaults of its own; of a service without one none is asked for.
        for folder in (service, "shared/outbox"):
            value = tomllib.loads((ROOT / folder / "default.toml").read_text())
            for part in key.split("."):
                value = value.get(part) if isinstance(value, dict) else None
            if value is not None:
                break
        variable = f"{service}.{key}".replace("-", "_").replace(".", "__").upper()
        return self.settings(service).get(variable, value)

    def mistakes(self):
        for resource in self.all:
            for text in self.of_any(resource):
                yield f"{self.name(resource)}: {text}"
        for job in self.of("Job"):
            for text in self.of_job(job):
                yield f"{self.name(job)}: {text}"
        for workload in self.workloads:
            for text in self.of_pod(workload["spec"]["template"]["spec"]):
                yield f"{self.name(workload)}: {text}"
        for service in SERVICES:
            for text in self.of_service(service):
                yield f"{service}: {text}"
        yield from self.of_selectors()
        if len({one["metadata"].get("namespace") for one in self.all if one["kind"] != "Namespace"}) != 1:
            yield "not all in one namespace"

    @staticmethod
    def of_any(resource):
        if resource["kind"] == "Secret":
            yield "a secret has no place in a repository"
        if not NAME.fullmatch(resource["metadata"]["name"]):
            yield "not a name of Kubernetes"
        for path, value in everything(resource):
            key = path[-1] if path else None
            if key in CHOICES and value not in CHOICES[key]:
                yield f"{key}: {value} is none of {sorted(CHOICES[key])}"
            if len(path) > 1 and path[-2] in ("limits", "requests") and not QUANTITY.fullmatch(str(value)):
                yield f"{key}: {value} is not a quantity"
            if key in ("maxUnavailable", "maxSurge") and not re.fullmatch(r"\d+%?", str(value)):
                yield f"{key}: {value} is neither a number nor a share"
            if key == "policyTypes" and not set(value) <= {"Ingress", "Egress"}:
                yield f"policyTypes: {value}"

    @staticmethod
    def of_job(job):
        annotations, [container] = job["metadata"]["annotations"], job["spec"]["template"]["spec"]["containers"]
        if container["args"] != ["migrate"] or "service:" not in container["image"]:
            yield "does not run a service's own migrate"
        if annotations.get("argocd.argoproj.io/hook-delete-policy") != "BeforeHookCreation":
            yield "Argo CD cannot run it again"
        if annotations.get("kustomize.toolkit.fluxcd.io/force") != "enabled":
            yield "Flux cannot run it again"
        if not job["spec"].get("ttlSecondsAfterFinished"):
            yield "stays for ever"
        files = [one["value"] for one in container["env"] if one["name"].endswith("_FILE")]
        yield from Overlay.of_files(job["spec"]["template"]["spec"], files)

    @staticmethod
    def of_pod(pod):
        if pod.get("automountServiceAccountToken") is not False or pod.get("enableServiceLinks") is not False:
            yield "knows more of the cluster than it needs"
        shared = pod.get("securityContext", {})
        if not shared.get("runAsNonRoot") or shared.get("seccompProfile") != {"type": "RuntimeDefault"}:
            yield "may run as root, or without the runtime's seccomp profile"
        for container in pod["containers"]:
            own = container.get("securityContext", {})
            if own.get("allowPrivilegeEscalation") is not False or not own.get("readOnlyRootFilesystem"):
                yield "may gain privileges, or write to its root"
            if own.get("capabilities") != {"drop": ["ALL"]}:
                yield "keeps capabilities"
            resources = container.get("resources", {})
            if not {"cpu", "memory"} <= set(resources.get("requests", {})) or "memory" not in resources.get("limits", {}):
                yield "asks for no resources, or has no limit of its memory"
            if ":" not in container["image"]:
                yield f"{container['image']} has no version"
            for variable in container.get("env", []):
                if not variable["name"].endswith(("_FILE", "__ALLOW_PLAINTEXT")):
                    yield f"{variable['name']} belongs into a file or a ConfigMap"

    def of_service(self, service):
        deployment = self.one("Deployment", service)["spec"]
        pod = deployment["template"]["spec"]
        [container] = pod["containers"]
        ports = {port["name"]: port["containerPort"] for port in container["ports"]}
        for name in ("http", "management"):
            if ports[name] != int(self.setting(service, f"{name}.bind").rsplit(":", 1)[1]):
                yield f"its port {name} is not that of its settings"
        for probe, path in [("startup", "startup"), ("liveness", "live"), ("readiness", "ready")]:
            if container[f"{probe}Probe"]["httpGet"] != {"path": f"/health/{path}", "port": "management"}:
                yield f"its {probe} probe asks something else"
        if container["readinessProbe"]["timeoutSeconds"] <= READY_WITHIN:
            yield "its readiness probe gives up before the answer comes"

        before_the_signal = container["lifecycle"]["preStop"]["sleep"]["seconds"]
        delay, grace = (seconds(self.setting(service, f"shutdown.{part}")) for part in ("readiness_delay", "grace"))
        needed = before_the_signal + delay + grace + HAND_OVER
        if pod["terminationGracePeriodSeconds"] < needed + 3:
            yield f"it is killed before it has stopped, which takes {needed} s"
        if {spread["topologyKey"] for spread in pod["topologySpreadConstraints"]} != CHOICES["topologyKey"]:
            yield "it is not spread over nodes and zones"

        most = deployment["replicas"] + deployment["strategy"]["rollingUpdate"]["maxSurge"]
        partitions = int(self.setting("order-service", "kafka.partitions"))
        if service == "activity-service" and most > partitions:
            yield f"{most} instances while updating, for {partitions} partitions"
        for key in self.settings(service):
            is_choice = key.endswith(("_FILE", "__ALLOW_PLAINTEXT"))
            if re.search("DATABASE|PASSWORD|USERNAME|SECRET", key) and not is_choice:
                yield f"{key} is in a ConfigMap"
        files = [value for key, value in self.settings(service).items() if key.endswith("_FILE")]
        yield from self.of_files(deployment["template"]["spec"], files)

    @staticmethod
    def of_files(pod, files):
        """Each is where a secret is mounted, for the group of the process alone."""
        [container] = pod["containers"]
        secrets = {volume["name"]: volume["secret"] for volume in pod["volumes"]}
        for file in files:
            mounts = [one for one in container["volumeMounts"] if file.startswith(one["mountPath"] + "/")]
            if len(mounts) != 1 or not mounts[0].get("readOnly"):
                yield f"{file} is in no mounted secret"
            elif secrets[mounts[0]["name"]].get("defaultMode") != 0o440 or "fsGroup" not in pod["securityContext"]:
                yield f"{file} can be read by everybody, or not by the process"

    def of_selectors(self):
        """A selector that selects nothing is a typing error that nobody notices."""
        pods = [one["spec"]["template"] for one in self.workloads]
        accounts = {one["metadata"]["name"]: one for one in self.of("ServiceAccount")}
        for workload in self.workloads:
            account = accounts.get(workload["spec"]["template"]["spec"].get("serviceAccountName"), {})
            if account.get("automountServiceAccountToken") is not False:
                yield f"{self.name(workload)} has no account of its own, or one with a token"
        for resource in self.of("Deployment") + self.of("PodDisruptionBudget") + self.of("PodMonitor"):
            if len(self.selected(resource["spec"]["selector"], pods)) == 0:
                yield f"{self.name(resource)} selects no pod"
        for service in self.of("Service"):
            chosen = self.selected({"matchLabels": service["spec"]["selector"]}, pods)
            if [port["targetPort"] for port in service["spec"]["ports"]] != ["http"] or len(chosen) != 1:
                yield f"{self.name(service)} does not lead to the API of one service, or to more than that"
        closed = False
        for policy in self.of("NetworkPolicy"):
            spec = policy["spec"]
            chosen = self.selected(spec["podSelector"], pods)
            if not chosen:
                yield f"{self.name(policy)} selects no pod"
            if set(spec["policyTypes"]) == {"Ingress", "Egress"} and not {"ingress", "egress"} & set(spec):
                closed |= len(chosen) == len(pods)
            for rule in spec.get("ingress", []):
                sources = [one["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"] for one in rule["from"]]
                if {"port": "management"} in rule["ports"] and sources != ["monitoring"]:
                    yield f"{self.name(policy)} opens the management port to {sources}"
        if not closed:
            yield "no policy closes everything that is not opened"

    @staticmethod
    def selected(selector, pods):
        return [pod for pod in pods if selects(selector, pod["metadata"]["labels"])]
