"""Renders the manifests with kustomize and the chart with helm, and checks that both are the same, that schemas and the operator's
types know every field, that rules and dashboards are the project's, and that the Secrets are made as the document says. Breaks
each in turn then, to see that it would be noticed.

Run by `make kubernetes`, which installs the tools with scripts/deploy-tools.
"""

import copy
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile

import kubernetes_validate
import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
TOOLS = ROOT / "target/tools/bin"
KUBERNETES = "deploy/kubernetes"
CHART = "deploy/helm/skmem-exporter"
NAME = "skmem-exporter"
DOCUMENT = ROOT / "docs/kubernetes.md"
WEB_DOCUMENT = ROOT / "docs/web.md"

# The first version with appArmorProfile, and the newest one with a schema here.
VERSIONS = ("1.30", "1.37")
# The API server refuses annotations that are larger in all, and `kubectl apply` puts the whole object into one.
ANNOTATIONS_MAX = 256 * 1024
OPERATOR = "monitoring.coreos.com/v1"
TIMEOUT = 120  # seconds, for a tool that takes one

WEB = ["web.secretName=skmem-exporter-web"]
OPERATED = ["podMonitor.enabled=true", "prometheusRule.enabled=true", "dashboards.enabled=true"]
# Each way to install with kustomize, and the chart's values for the same.
PAIRS = {
    "base": [],
    "overlays/own-namespace": ["netns=own"],
    "overlays/prometheus-operator": OPERATED,
    "overlays/priority-quota": ["priorityQuota.enabled=true"],
    "overlays/tls": WEB,
    "overlays/everything": OPERATED + WEB + ["web.login=true", "podMonitor.loginSecretName=skmem-exporter-login"],
}
CLIENT = "podMonitor.clientSecretName=skmem-exporter-client"
# A kustomization that adds client certificates to a login.
BOTH = """\
namespace: skmem-exporter
resources: [skmem-exporter/deploy/kubernetes/overlays/everything]
components: [skmem-exporter/deploy/kubernetes/components/prometheus-operator-client-certificate]
"""
# What stands for kubectl: it writes down each argument, ended by NUL, and one NUL more after each command.
KUBECTL = """\
#!/bin/sh
{ printf '%s\\0' "$@"; printf '\\0'; } >> kubectl.said
"""


class Wrong(Exception):
    """What is wrong, for people."""


def run(*command, text=None):
    result = subprocess.run(command, cwd=ROOT, input=text, capture_output=True, encoding="utf-8", timeout=TIMEOUT, check=False)
    if result.returncode != 0:
        raise Wrong(f"{' '.join(map(str, command))}: exit {result.returncode}\n{result.stdout}{result.stderr}")
    return result.stdout


def documents(text):
    """Objects by kind and name."""
    found = {}
    for document in yaml.safe_load_all(text):
        if document is None:
            continue
        key = (document["kind"], document["metadata"]["name"])
        if key in found:
            raise Wrong(f"{key} is there twice")
        found[key] = document
    if not found:
        raise Wrong("nothing was rendered")
    return found


def kustomized(overlay):
    return documents(run(TOOLS / "kustomize", "build", f"{KUBERNETES}/{overlay}"))


def templated(values):
    settings = [argument for value in ["namespace.create=true", *values] for argument in ("--set", value)]
    # Built from its module, helm takes itself for one of Kubernetes 1.20.
    command = [TOOLS / "helm", "template", NAME, CHART, "--namespace", NAME, "--kube-version", VERSIONS[0], *settings]
    return documents(run(*command))


def listening(base, host, port):
    """The base as it should be where the exporter listens elsewhere."""
    objects = copy.deepcopy(base)
    pod = objects["DaemonSet", NAME]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    (address,) = [variable for variable in container["env"] if variable["name"] == "SKMEM_WEB_LISTEN_ADDRESS"]
    address["value"] = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    container["ports"][0]["containerPort"] = port
    if host:
        container["readinessProbe"]["httpGet"]["host"] = host
    objects["NetworkPolicy", NAME]["spec"]["ingress"][0]["ports"][0]["port"] = port
    return objects


def told(document, start):
    """The example of a document that begins so."""
    found = re.findall(rf"```[a-z]+\n({re.escape(start)}.*?)```", document.read_text(encoding="utf-8"), re.DOTALL)
    if len(found) != 1:
        raise Wrong(f"{document.name} has {len(found)} examples that begin with {start}")
    return found[0]


def overlaid(kustomization):
    """What an overlay of one's own gives, beside a checkout of the project."""
    with tempfile.TemporaryDirectory(dir=ROOT / "target") as directory:
        overlay = pathlib.Path(directory, "kustomization.yaml")
        overlay.write_text(kustomization.replace(f"{NAME}/deploy/", "../../deploy/"), encoding="utf-8")
        return documents(run(TOOLS / "kustomize", "build", directory))


def patched_as_told():
    """The base with the patches by which the document lets it listen elsewhere."""
    patches = told(DOCUMENT, "# in your kustomization.yaml: the node's loopback")
    return overlaid(f"resources: [{NAME}/{KUBERNETES}/base]\n{patches}")


def components(kustomization):
    """Names of the components that a kustomization takes by itself."""
    return {pathlib.PurePath(path).name for path in yaml.safe_load(kustomization).get("components", [])}


def clipped(value):
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:200]}..."


def difference(one, other, path=""):
    """Where two values differ first; None where they do not."""
    if isinstance(one, dict) and isinstance(other, dict):
        for key in sorted(one.keys() | other.keys(), key=str):
            if key not in one or key not in other:
                return f"{path}.{key} is only in {'the chart' if key in other else 'kustomize'}"
            if found := difference(one[key], other[key], f"{path}.{key}"):
                return found
        return None
    if isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        for index, pair in enumerate(zip(one, other)):
            if found := difference(*pair, f"{path}[{index}]"):
                return found
        return None
    if one == other and type(one) is type(other):
        return None
    return f"{path}: kustomize has {clipped(one)}, the chart {clipped(other)}"


def same(manifests, chart):
    if manifests.keys() != chart.keys():
        raise Wrong(f"objects differ: kustomize {sorted(manifests)}, chart {sorted(chart)}")
    for key, document in manifests.items():
        if found := difference(document, chart[key], "/".join(key)):
            raise Wrong(found)


def valid(objects):
    """Schemas of Kubernetes for its own kinds, the operator's types for its own; nothing is left unchecked."""
    operators = []
    for key, document in objects.items():
        size = len(json.dumps(document))
        if size > ANNOTATIONS_MAX:
            raise Wrong(f"{key} has {size} bytes: more than kubectl apply can keep in an annotation")
        if document["apiVersion"] == OPERATOR:
            operators.append(json.dumps(document))
            continue
        for version in VERSIONS:
            try:
                kubernetes_validate.validate(document, version, strict=True)
            except kubernetes_validate.ValidationError as error:
                raise Wrong(f"{key}, Kubernetes {version}: {error.message}") from error
            except kubernetes_validate.SchemaNotFoundError as error:
                raise Wrong(f"{key}: Kubernetes {version} has no {document['apiVersion']} {document['kind']}") from error
    if operators:
        run(TOOLS / "operator-types", text="\n".join(operators) + "\n")


def scrape_config(monitor):
    """What the operator makes of a PodMonitor, as far as a file can say it."""
    names = {"sourceLabels": "source_labels", "targetLabel": "target_label"}
    (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
    return {
        "job_name": "podMonitor/skmem-exporter/skmem-exporter/0",
        "scrape_interval": endpoint["interval"],
        "scrape_timeout": endpoint["scrapeTimeout"],
        "metrics_path": endpoint["path"],
        "scheme": endpoint["scheme"],
        "sample_limit": monitor["spec"]["sampleLimit"],
        "label_limit": monitor["spec"]["labelLimit"],
        "relabel_configs": [{names.get(key, key): value for key, value in one.items()} for one in endpoint["relabelings"]],
        # Debian's Prometheus is built without discovery in Kubernetes.
        "static_configs": [{"targets": ["node:10477"]}],
    }


def prometheus_takes(objects):
    """promtool reads the rules and the scrape configuration."""
    rules = objects["PrometheusRule", NAME]["spec"]
    if rules["groups"] != yaml.safe_load((ROOT / "alerts/skmem.rules.yml").read_text(encoding="utf-8"))["groups"]:
        raise Wrong("the groups of PrometheusRule are not those of alerts/skmem.rules.yml: run make bless")
    with tempfile.TemporaryDirectory() as directory:
        file = pathlib.Path(directory, "rules.yml")
        file.write_text(yaml.safe_dump(rules), encoding="utf-8")
        run("promtool", "check", "rules", "--lint=all", "--lint-fatal", file)
        file.write_text(yaml.safe_dump({"scrape_configs": [scrape_config(objects["PodMonitor", NAME])]}), encoding="utf-8")
        run("promtool", "check", "config", file)


def dashboards_are_ours(objects):
    found = {}
    for (kind, _), document in objects.items():
        if kind == "ConfigMap":
            if document["metadata"]["labels"] != {"grafana_dashboard": "1"}:
                raise Wrong(f"{document['metadata']['name']} has not the sidecar's label")
            found |= document["data"]
    for file in sorted((ROOT / "dashboards").glob("*.json")):
        if found.pop(file.name, None) != file.read_text(encoding="utf-8"):
            raise Wrong(f"{file.name} is not in its ConfigMap")
    if found:
        raise Wrong(f"ConfigMaps hold more than the dashboards: {list(found)}")


def joins_are_tried():
    """The queries of the document are those of the test, and do what it says."""
    test = "tests/kubernetes/joins.test.yml"
    tried = [
        case["expr"]
        for one in yaml.safe_load((ROOT / test).read_text(encoding="utf-8"))["tests"]
        for case in one["promql_expr_test"]
    ]
    queries = re.findall("```promql\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL)
    if not queries or queries != tried:
        raise Wrong(f"docs/kubernetes.md and {test} have different queries")
    run("promtool", "test", "rules", test)


def keys_named(value):
    """Secrets and keys in them that a PodMonitor names."""
    if isinstance(value, dict):
        if value.keys() == {"name", "key"}:
            yield value["name"], value["key"]
        value = list(value.values())
    if isinstance(value, list):
        for one in value:
            yield from keys_named(one)


def secrets_made(directory):
    """What the stand-in for kubectl was asked for, as a cluster would have it: keys and their values by the Secret's name."""
    secrets = {}
    for command in pathlib.Path(directory, "kubectl.said").read_text(encoding="utf-8").removesuffix("\0\0").split("\0\0"):
        create, secret, kind, name, *options = command.split("\0")
        if (create, secret, options[:2]) != ("create", "secret", ["-n", NAME]):
            raise Wrong(f"unknown command: {command!r}")
        secrets[name] = keys = {}
        for option in options[2:]:
            flag, _, what = option.partition("=")
            if kind == "tls" and flag in ("--cert", "--key"):
                key, file = {"--cert": "tls.crt", "--key": "tls.key"}[flag], what
            elif kind == "generic" and flag == "--from-file":
                key, _, file = what.rpartition("=")
                key = key or file
            elif kind == "generic" and flag == "--from-literal":
                key, _, keys[key] = what.partition("=")
                continue
            else:
                raise Wrong(f"unknown option: {option}")
            keys[key] = pathlib.Path(directory, file).read_text(encoding="utf-8")
    return secrets


def secrets_are_made_as_told(monitor):
    """The document's commands make certificates and Secrets that fit each other, and have what this PodMonitor names."""
    section = DOCUMENT.read_text(encoding="utf-8").split("\n## TLS and a login\n")[1].split("\n## ")[0]
    with tempfile.TemporaryDirectory() as directory:
        place = pathlib.Path(directory)
        for script, start in (("certificates.sh", "# certificates.sh"), ("password.sh", "# password.sh"), ("hash.sh", "# hash.sh: htpasswd")):
            (place / script).write_text(told(WEB_DOCUMENT, start), encoding="utf-8")
        (place / "bin").mkdir()
        (place / "bin/kubectl").write_text(KUBECTL, encoding="utf-8")
        (place / "bin/kubectl").chmod(0o755)
        told_commands = "".join(re.findall("```sh\n(.*?)```", section, re.DOTALL))

        def shell(script):
            environment = os.environ | {"PATH": f"{place / 'bin'}:{os.environ['PATH']}"}
            result = subprocess.run(
                ["sh", "-euc", script], cwd=place, env=environment, capture_output=True, encoding="utf-8", timeout=TIMEOUT, check=False
            )
            if result.returncode != 0:
                raise Wrong(f"{script}: exit {result.returncode}\n{result.stdout}{result.stderr}")

        shell(told_commands)
        secrets = secrets_made(place)
        for name, key in keys_named(monitor):
            if key not in secrets.get(name, {}):
                raise Wrong(f"the document makes no Secret {name} with {key}")
        web = secrets["skmem-exporter-web"]
        config = yaml.safe_load(web["web.yml"])
        for file in config["tls_server_config"].values():
            if file not in web:
                raise Wrong(f"{file} of web.yml is not in its Secret")
        login = secrets["skmem-exporter-login"]
        # The operator copies it: with a newline it is another password.
        if login["password"] != login["password"].strip():
            raise Wrong("there is white space around the password")
        (place / "users").write_text(f"{login['username']}:{config['basic_auth_users'][login['username']]}\n", encoding="utf-8")
        shell(f"htpasswd -vb users {login['username']} '{login['password']}'")
        client = secrets["skmem-exporter-client"]
        for name, text in (("ca.crt", web["ca.crt"]), ("server", web["tls.crt"]), ("client", client["tls.crt"])):
            (place / name).write_text(text, encoding="utf-8")
        shell(f"openssl verify -CAfile ca.crt -purpose sslserver -verify_hostname {NAME} server")
        shell("openssl verify -CAfile ca.crt -purpose sslclient client")


def must_be_refused(what, check, objects, change):
    broken = copy.deepcopy(objects)
    change(broken)
    try:
        check(broken)
    except Wrong:
        return
    sys.exit(f"check.py: {what} goes unnoticed")


def renamed(key, path, old, new):
    """A change that spells the field `old`, below `path` of the object `key`, in another way."""

    def change(objects):
        place = objects[key]
        for step in path:
            place = place[step]
        place[new] = place.pop(old)

    return change


def mistakes(objects):
    """The checks notice mistakes: each of these must be refused."""
    daemon_set, monitor, rule = ("DaemonSet", NAME), ("PodMonitor", NAME), ("PrometheusRule", NAME)
    pod = ("spec", "template", "spec")
    container = (*pod, "containers", 0)
    endpoint = ("spec", "podMetricsEndpoints", 0)

    def value(key, path, field, new):
        def change(objects):
            place = objects[key]
            for step in path:
                place = place[step]
            place[field] = new

        return change

    for what, check, change in (
        ("hostPid", valid, renamed(daemon_set, pod, "hostPID", "hostPid")),
        ("readonlyRootFilesystem", valid, renamed(daemon_set, (*container, "securityContext"), "readOnlyRootFilesystem", "readonlyRootFilesystem")),
        ("a port that is a text", valid, value(daemon_set, (*container, "ports", 0), "containerPort", "10477")),
        ("a policy's typo", valid, renamed(("NetworkPolicy", NAME), ("spec",), "podSelector", "podSelectors")),
        ("a monitor's typo", valid, renamed(monitor, ("spec",), "sampleLimit", "samplelimit")),
        ("an endpoint's typo", valid, renamed(monitor, endpoint, "relabelings", "relabelConfigs")),
        ("a limit that is a text", valid, value(monitor, ("spec",), "sampleLimit", "many")),
        ("a rule's typo", valid, renamed(rule, ("spec", "groups", 1, "rules", 0), "annotations", "annotation")),
        ("another version of the operator's API", valid, value(monitor, (), "apiVersion", "monitoring.coreos.com/v2")),
        ("an object that is too large", valid, value(("ConfigMap", "skmem-dashboard-host"), ("data",), "more", "x" * ANNOTATIONS_MAX)),
        ("an interval that is none", prometheus_takes, value(monitor, endpoint, "interval", "30")),
        ("an unknown action", prometheus_takes, value(monitor, (*endpoint, "relabelings", 1), "action", "labeldrops")),
        ("another threshold", prometheus_takes, value(rule, ("spec", "groups", 0, "rules", 0), "expr", "vector(1)")),
        ("another dashboard", dashboards_are_ours, value(("ConfigMap", "skmem-dashboard-host"), ("data",), "skmem-host.json", "{}")),
        ("a dashboard without label", dashboards_are_ours, value(("ConfigMap", "skmem-dashboard-fleet"), ("metadata",), "labels", {})),
        ("a capability less", lambda broken: same(objects, broken), value(daemon_set, (*container, "securityContext", "capabilities"), "add", [])),
        ("a number as a text", lambda broken: same(objects, broken), value(daemon_set, pod, "terminationGracePeriodSeconds", "10")),
        ("an object less", lambda broken: same(objects, broken), lambda broken: broken.pop(rule)),
    ):
        must_be_refused(what, check, objects, change)

    for setting in ("netns=none", "hostPid=true", "podMonitor.interval=30", "web.login=true", "port=0", "port=65536", "listenHost=a/b", "env.SKMEM_NETNS=own", "env.NETNS=own", "env.SKMEM_WEB_TELEMETRY_PATH=/x", "env.SKMEM_WEB_SYSTEMD_SOCKET=x", "podMonitor.clientSecretName=x", "priorityQuota.enabled=true,priorityClassName="):
        try:
            templated([setting])
        except Wrong:
            continue
        sys.exit(f"check.py: the chart takes {setting}")


def main():
    rendered = {}
    for overlay, values in PAIRS.items():
        rendered[overlay] = kustomized(overlay)
        same(rendered[overlay], templated(values))
        valid(rendered[overlay])
        print(f"{overlay}: {len(rendered[overlay])} objects, as the chart with {values or 'its defaults'}")
    if set(PAIRS) != {"base"} | {f"overlays/{path.name}" for path in (ROOT / KUBERNETES / "overlays").iterdir()}:
        raise Wrong("an overlay is not compared with the chart")
    used = set().union(*(components((ROOT / KUBERNETES / overlay / "kustomization.yaml").read_text(encoding="utf-8")) for overlay in PAIRS))
    only_certificates = told(DOCUMENT, "# in your kustomization.yaml: client certificates and no login.")
    values = [*OPERATED, *WEB, "web.login=true", CLIENT]
    for kustomization, values in ((only_certificates, values), (BOTH, [*PAIRS["overlays/everything"], CLIENT])):
        manifests = overlaid(kustomization)
        same(manifests, templated(values))
        valid(manifests)
        used |= components(kustomization)
    if unused := {path.name for path in (ROOT / KUBERNETES / "components").iterdir()} - used:
        raise Wrong(f"not compared with the chart: {unused}")
    secrets_are_made_as_told(manifests["PodMonitor", NAME])
    for overlay in ("overlays/prometheus-operator", "overlays/everything"):
        prometheus_takes(rendered[overlay])
        dashboards_are_ours(rendered[overlay])
    for host, port in (("127.0.0.1", 10478), ("::1", 10477), ("", 9100)):
        moved = templated([f"listenHost={host}", f"port={port}"])
        same(listening(rendered["base"], host, port), moved)
        valid(moved)
        if port != 10477 and "10477" in json.dumps(list(moved.values())):
            raise Wrong(f"with port={port} the chart still speaks of 10477")
    same(patched_as_told(), templated(["listenHost=127.0.0.1", "port=10478"]))
    variables = templated(["env.SKMEM_PROCESS_MAX=x"])["DaemonSet", NAME]["spec"]["template"]["spec"]["containers"][0]["env"]
    if {"name": "SKMEM_PROCESS_MAX", "value": "x"} not in variables:
        raise Wrong("env of the chart does not reach the container")
    joins_are_tried()
    mistakes(rendered["overlays/prometheus-operator"])
    # Labels that a Prometheus selects by, and pages of one's own.
    selected = templated([*OPERATED, "podMonitor.labels.release=x", "prometheusRule.labels.release=x", "prometheusRule.runbookUrl=https://wiki"])
    for kind in ("PodMonitor", "PrometheusRule"):
        if selected[kind, NAME]["metadata"]["labels"].get("release") != "x":
            raise Wrong(f"{kind} does not take labels")
    if "example.com/skmem-exporter" in json.dumps(selected["PrometheusRule", NAME]):
        raise Wrong("runbookUrl does not reach every alert")
    needed = yaml.safe_load((ROOT / CHART / "Chart.yaml").read_text(encoding="utf-8"))["kubeVersion"]
    if needed != f">={VERSIONS[0]}.0-0":
        raise Wrong(f"the chart takes Kubernetes {needed}, the oldest that is checked is {VERSIONS[0]}")
    run(TOOLS / "helm", "lint", "--strict", "--kube-version", VERSIONS[0], CHART)


if __name__ == "__main__":
    try:
        main()
    except Wrong as wrong:
        sys.exit(f"check.py: {wrong}")
