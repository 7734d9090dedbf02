"""Holds the PrometheusRule of the component against the alerts it is made of; with --write it makes it.

    python deploy/check/rules_of_operator.py [--write]
"""

import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
ALERTS = ROOT / "deploy/observability/alerts.yml"
RULE = ROOT / "deploy/kubernetes/components/prometheus-operator/rules.yaml"
HEAD = """\
# Made of deploy/observability/alerts.yml, which make deployment compares it with: deploy/check/rules_of_operator.py --write
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: summarisation
spec:
"""


def main():
    alerts = ALERTS.read_text()
    lines = alerts[alerts.index("groups:") :].splitlines(keepends=True)
    made = HEAD + "".join(f"  {line}" if line.strip() else line for line in lines)
    if sys.argv[1:] == ["--write"]:
        RULE.write_text(made)
    elif RULE.read_text() != made:
        sys.exit(f"{RULE} is not made of {ALERTS}: run {sys.argv[0]} --write")


main()
