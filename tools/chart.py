"""Makes the templates of the Helm chart, deploy/helm/outgate, from the manifests that kustomize applies.

One truth: a manifest is written once, under deploy/, and here stands only what a chart asks as a value instead.
"""

from __future__ import annotations

import re
from pathlib import Path

Swaps = tuple[tuple[str, str], ...]
_HEAD = "{{- /* Made by tools/chart.py from %s. Change it there. */ -}}\n"
_NAMESPACE = "{{ .Release.Namespace }}"
_IMAGE = (
    "image: outgate:0.1.0",
    'image: "{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}"',
)
_CLUSTER: Swaps = (
    ("--namespace=outgate", f"--namespace={_NAMESPACE}"),
    ("--lease-duration=8", "--lease-duration={{ .Values.lease.duration }}"),
    ("--renew-deadline=5", "--renew-deadline={{ .Values.lease.renewDeadline }}"),
    ("--retry-period=1", "--retry-period={{ .Values.lease.retryPeriod }}"),
    _IMAGE,
    ("replicas: 2", "replicas: {{ .Values.replicas }}"),
    (
        "            requests: {cpu: 20m, memory: 100Mi}\n            limits: {memory: 500Mi}\n",
        "            {{- toYaml .Values.resources | nindent 12 }}\n",
    ),
)
_FLOW = "flowcontrol.apiserver.k8s.io"
_FLOW_VERSION = '{{ semverCompare ">=1.29-0" .Capabilities.KubeVersion.Version | ternary "v1" "v1beta3" }}'


def templates(deploy: Path) -> dict[str, str]:
    """Return the templates by file name.

    Raises:
        ValueError: a manifest no longer holds what a value stands for.
    """
    base, policies, monitoring = deploy / "kustomize" / "base", deploy / "policies", deploy / "monitoring"
    crds = sorted((deploy / "crds").glob("outgate.io_*.yaml"))
    return {
        "crds.yaml": _template(crds, (), when=".Values.crds"),
        "rbac.yaml": _template([base / "rbac.yaml"], ()),
        "cluster.yaml": _template([base / "cluster.yaml"], _CLUSTER),
        "node.yaml": _template([base / "node.yaml"], (_IMAGE,)),
        "flowschema.yaml": _template([base / "flowschema.yaml"], ((f"{_FLOW}/v1", f"{_FLOW}/{_FLOW_VERSION}"),)),
        "policies-1.30.yaml": _template(sorted((policies / "1.30").glob("[!k]*.yaml")), (), when=_since("1.30")),
        "policies-1.31.yaml": _template(sorted((policies / "1.31").glob("[!k]*.yaml")), (), when=_since("1.31")),
        "monitoring.yaml": _template(
            [monitoring / "rules.yaml", monitoring / "cluster.yaml"], (), when=".Values.monitoring"
        ),
    }


def _since(version: str) -> str:
    """Return the condition of what the API server knows since a version; OpenShift appends its own words to it."""
    return f'and .Values.policies (semverCompare ">={version}-0" .Capabilities.KubeVersion.Version)'


def _template(manifests: list[Path], swaps: Swaps, when: str = "") -> str:
    made = "---\n".join(_swapped(manifest.read_text(), swaps) for manifest in manifests)
    sources = ", ".join(str(one.relative_to(one.parents[2])) for one in manifests)
    return _HEAD % sources + (f"{{{{- if {when} }}}}\n{made}{{{{- end }}}}\n" if when else made)


def _swapped(text: str, swaps: Swaps) -> str:
    text = re.sub(r"^# .*\n", "", text, flags=re.MULTILINE)
    text = re.sub(r"{{.*?}}", lambda found: "{{ `" + found[0] + "` }}", text)  # of Prometheus, not of Helm
    for old, new in swaps:
        if old not in text:
            raise ValueError(f"tools/chart.py: no {old!r} in the manifest any more")
        text = text.replace(old, new)
    text = text.replace("serviceaccount:outgate:", f"serviceaccount:{_NAMESPACE}:")
    return re.sub(r"namespace: outgate\b(?!-)", f"namespace: {_NAMESPACE}", text)


def chart(deploy: Path) -> dict[Path, str]:
    """Return the generated files of the chart and what they should hold."""
    folder = deploy / "helm" / "outgate" / "templates"
    return {folder / name: text for name, text in templates(deploy).items()}
