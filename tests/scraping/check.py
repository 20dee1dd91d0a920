"""Reads the scrape configurations of deploy/scraping with the loaders of the programs they are for, and tries those that Prometheus
can run: a real Prometheus scrapes a real exporter with each, at a shorter interval.

Run by `make scraping` in a network namespace of its own, so that the ports that the examples name are free.
"""

import contextlib
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request

import yaml

# Everything asked is on this machine.
os.environ["no_proxy"] = "*"
ROOT = pathlib.Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "deploy/scraping"
READERS = ROOT / "target/tools/bin/readers"
EXPORTER = ROOT / "target/debug/skmem-exporter"
WAIT_SECONDS = 60
# What the examples name; here nobody else is.
SERVER, AGENT = 9090, 9091
# One name and password; the hash is bcrypt's, of the least cost it takes.
USER, PASSWORD = "prometheus", "for-tests"
HASH = "$2b$04$nX2NanP6OtkOm4TiqV/szuyyPEmoB312El8tE/GkKCUGzyn1QHt16"

# Which loaders read which file. The collector's has its scrape_configs taken out first; nothing here reads Alloy's.
READ_BY = {
    "static.yml": ("promtool", "prometheus", "vmagent"),
    "files.yml": ("promtool", "prometheus", "vmagent"),
    "tls.yml": ("promtool", "prometheus", "vmagent"),
    "hosts-only.yml": ("promtool", "prometheus", "vmagent"),
    "kubernetes.yml": ("prometheus", "vmagent"),  # Debian's promtool is built without discovery in Kubernetes
    "agent.yml": ("promtool --agent", "agent"),
    "otel-collector.yml": ("promtool", "prometheus"),
}
UNREAD = {"config.alloy", "targets"}


class Wrong(Exception):
    """What is wrong, for people."""


def expect(is_so, what):
    if not is_so:
        raise Wrong(what)


def run(*command):
    result = subprocess.run(command, capture_output=True, encoding="utf-8", timeout=WAIT_SECONDS, check=False)
    expect(result.returncode == 0, f"{' '.join(map(str, command))}: exit {result.returncode}\n{result.stdout}{result.stderr}")


def until(what, ask):
    end = time.monotonic() + WAIT_SECONDS
    while not (answer := ask()):
        expect(time.monotonic() < end, f"not within {WAIT_SECONDS} s: {what}")
        time.sleep(0.2)
    return answer


def read(file, loaders):
    for loader in loaders:
        if loader.startswith("promtool"):
            run("promtool", "check", "config", *loader.split()[1:], file)
        else:
            run(READERS, loader, f"-promscrape.config={file}" if loader == "vmagent" else file)


@contextlib.contextmanager
def started(*command, log):
    with open(log, "w", encoding="utf-8") as output:
        with subprocess.Popen(command, stdout=output, stderr=output) as process:
            try:
                yield process
            except Wrong:
                print(pathlib.Path(log).read_text(encoding="utf-8")[-4000:], file=sys.stderr)
                raise
            finally:
                process.kill()


def ask(port, path):
    try:
        with urllib.request.urlopen(f"http://localhost:{port}{path}", timeout=5) as response:
            return json.load(response)["data"]
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return None


def query(text, port=SERVER):
    answer = ask(port, f"/api/v1/query?query={urllib.parse.quote(text)}") or {"result": []}
    return {tuple(sorted(one["metric"].items())): float(one["value"][1]) for one in answer["result"]}


def number(text):
    found = list(query(text).values())
    return found[0] if len(found) == 1 else None


def hurried(text):
    """The same, at a shorter interval; nothing else is changed."""
    expect("scrape_interval: 30s" in text, "no interval of 30s")
    return text.replace("scrape_interval: 30s", "scrape_interval: 1s")


@contextlib.contextmanager
def prometheus(directory, text, port=SERVER, *flags):
    """Yields once something is scraped, or at once where nothing is to be."""
    config = pathlib.Path(directory, "prometheus.yml")
    config.write_text(text, encoding="utf-8")
    where = [f"--web.listen-address=localhost:{port}", f"--config.file={config}"]
    if not any("agent" in flag for flag in flags):
        where.append(f"--storage.tsdb.path={tempfile.mkdtemp(dir=directory)}")
    with started("prometheus", *where, *flags, log=pathlib.Path(directory, f"log-{port}")):
        yield


def scraped(what):
    """Waits until a complete sample with the culprit has been scraped by some target."""
    until(f"{what}: a scrape", lambda: number("sum(up)") and number("count(skmem_tcp_memory_bytes) > 0"))


def targets():
    return (ask(SERVER, "/api/v1/targets") or {"activeTargets": []})["activeTargets"]


def instances():
    return {dict(labels).get("instance") for labels in query("skmem_tcp_memory_bytes")}


def podmonitor():
    """What the operator makes of the PodMonitor's relabelings, behind what it adds itself."""
    monitor = yaml.safe_load((ROOT / "deploy/kubernetes/components/prometheus-operator/podmonitor.yaml").read_text(encoding="utf-8"))
    names = {"sourceLabels": "source_labels", "targetLabel": "target_label"}
    (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
    added = [
        {"source_labels": [f"__meta_kubernetes_{source}"], "target_label": target}
        for source, target in (("namespace", "namespace"), ("pod_container_name", "container"), ("pod_name", "pod"))
    ] + [{"target_label": "endpoint", "replacement": "metrics"}]
    ours = [{names.get(key, key): value for key, value in one.items()} for one in endpoint["relabelings"]]
    limits = {"sample_limit": monitor["spec"]["sampleLimit"], "label_limit": monitor["spec"]["labelLimit"]}
    return {"scrape_configs": [{"job_name": "skmem", "scrape_interval": "30s", **limits, "relabel_configs": added + ours}]}


def pods(config):
    """Three containers of two nodes in place of those that Kubernetes would tell of; two are exporters, and one is another port."""
    found = []
    for name, node, address, port in (
        ("skmem-exporter", "node-a", "localhost:10477", "metrics"),
        ("skmem-exporter", "node-b", "127.0.0.1:10477", "metrics"),
        ("something-else", "node-b", "[::1]:10477", "metrics"),
    ):
        labels = {
            "namespace": "skmem-exporter",
            "pod_label_app_kubernetes_io_name": name,
            "pod_container_port_name": port,
            "pod_container_name": name,
            "pod_name": f"{name}-x",
            "pod_node_name": node,
        }
        found.append({"targets": [address], "labels": {f"__meta_kubernetes_{key}": value for key, value in labels.items()}})
    (scrape,) = config["scrape_configs"]
    scrape.pop("kubernetes_sd_configs", None)
    return {"scrape_configs": [{**scrape, "static_configs": found}]}


def try_plain(directory, examples, culprit):
    row = f'skmem_process_tcp_memory_bytes{{pid="{culprit}"}}'
    for name in ("static.yml", "files.yml", "otel-collector.yml", "hosts-only.yml"):
        with prometheus(directory, hurried(examples[name])):
            scraped(name)
            expect(instances() == {"localhost"}, f"{name}: instances {instances()}")
            expect(set(query("up{job='skmem'}").values()) == {1.0}, f"{name}: up {query('up')}")
            whole = "sum(skmem_tcp_attributed_memory_bytes{owner=~'process|accept_queue'})"
            until(f"{name}: the culprit's memory", lambda: (number(whole) or 0) > 1 << 20)
            if name == "hosts-only.yml":
                kept = number("count({__name__=~'skmem_.+'})")
                expect(not query("{__name__=~'skmem_(process|cgroup)_.+'}"), f"{name}: rows of processes are there")
                expect(155 <= kept <= 175, f"{name}: {kept:.0f} series, where it says 165")
                expect(number("count(skmem_findings)"), f"{name}: no findings")
                print(f"{name}: {kept:.0f} series")
                continue
            until(f"{name}: the culprit", lambda: number(row))
            difference = f"sum(skmem_process_tcp_memory_bytes) - {whole}"
            expect(number(difference) == 0, f"{name}: the rows are not the sum")
            of_one = number(f'count({{pid="{culprit}"}})')
            expect(of_one in (25, 26), f"{name}: {of_one} series of a process, where docs/scraping.md says 25")
            if name == "files.yml":
                expect(query("skmem_tcp_memory_bytes{rack='a1'}"), f"{name}: the label of the file is lost")
            print(f"{name}: scraped")

    for name, config in (("kubernetes.yml", yaml.safe_load(examples["kubernetes.yml"])), ("PodMonitor", podmonitor())):
        text = hurried(yaml.safe_dump(pods(config)))
        with prometheus(directory, text):
            scraped(name)
            wanted = {"node-a", "node-b"}
            until(f"{name}: both nodes", lambda: instances() == wanted)
            for labels in query("skmem_tcp_memory_bytes"):
                keys = set(dict(labels)) - {"__name__", "instance", "job", "namespace"}
                expect(not keys, f"{name}: labels {keys} of the exporter's own pod")
            addresses = {target["discoveredLabels"]["__address__"] for target in targets()}
            if name == "kubernetes.yml":  # the operator selects pods by label elsewhere
                expect(addresses == {"localhost:10477", "127.0.0.1:10477"}, f"{name}: targets {addresses}")
            print(f"{name}: instances {sorted(wanted)}")

    receiver = "global: {scrape_interval: 1s}\n"
    with prometheus(directory, receiver, SERVER, "--web.enable-remote-write-receiver"):
        until("the receiver", lambda: ask(SERVER, "/api/v1/status/buildinfo"))
        place = pathlib.Path(directory, "agent")
        place.mkdir()
        flags = ["--enable-feature=agent", f"--storage.agent.path={place / 'data'}"]
        with prometheus(place, hurried(examples["agent.yml"]), AGENT, *flags):
            found = until("agent.yml: what was written remotely", lambda: query("skmem_tcp_memory_bytes"))
            (labels,) = map(dict, found)
            expect(labels["cluster"] == "example" and labels["instance"] == "localhost", f"agent.yml: {labels}")
            until("agent.yml: the culprit", lambda: number(row))
            print("agent.yml: written remotely")


def secrets(directory):
    place = pathlib.Path(directory)
    subject = ["-subj", "/CN=skmem-exporter", "-addext", "subjectAltName=DNS:skmem-exporter"]
    new = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "1"]
    run("openssl", "req", "-x509", *new, *subject, "-keyout", place / "tls.key", "-out", place / "skmem-ca.crt")
    (place / "skmem-password").write_text(PASSWORD, encoding="utf-8")
    web = f"tls_server_config: {{cert_file: skmem-ca.crt, key_file: tls.key}}\nbasic_auth_users: {{{USER}: '{HASH}'}}\n"
    (place / "web.yml").write_text(web, encoding="utf-8")
    return place / "web.yml"


def exporter(directory, *flags):
    settings = ["--netns=own", "--sample.interval=1s", "--log.level=warn"]
    return started(EXPORTER, *settings, *flags, log=pathlib.Path(directory, "exporter.log"))


def main():
    run("ip", "link", "set", "lo", "up")
    examples = {file.name: file.read_text(encoding="utf-8") for file in EXAMPLES.glob("*.yml")}
    there = {path.name for path in EXAMPLES.iterdir()}
    expect(there == READ_BY.keys() | UNREAD, f"nothing reads {sorted(there - READ_BY.keys() - UNREAD)}")
    collector = yaml.safe_load(examples["otel-collector.yml"])["receivers"]["prometheus"]["config"]
    examples["otel-collector.yml"] = yaml.safe_dump(collector).replace("$$", "$")

    with tempfile.TemporaryDirectory() as directory:
        shutil.copytree(EXAMPLES / "targets", pathlib.Path(directory, "targets"))
        web = secrets(directory)
        for name, loaders in READ_BY.items():
            file = pathlib.Path(directory, name)
            file.write_text(examples[name], encoding="utf-8")
            read(file, loaders)
            # The loaders do read: a key that none of them knows is refused by each.
            file.write_text(examples[name].replace("job_name:", "jobname:"), encoding="utf-8")
            for loader in loaders:
                try:
                    read(file, [loader])
                except Wrong:
                    continue
                raise Wrong(f"{loader} takes any {name}")
        print(f"read: {len(READ_BY)} files; not read: config.alloy")

        culprit = [sys.executable, ROOT / "tests/programs/culprit.py", "culprit", "10"]
        with exporter(directory), started(*culprit, log=pathlib.Path(directory, "culprit.log")) as process:
            try_plain(directory, examples, process.pid)
        with exporter(directory, f"--web.config.file={web}"):
            with prometheus(directory, hurried(examples["tls.yml"])):
                scraped("tls.yml")
            # Without the password nothing is scraped.
            (pathlib.Path(directory, "skmem-password")).write_text("another", encoding="utf-8")
            with prometheus(directory, hurried(examples["tls.yml"])):
                until("being refused", lambda: any("401" in one["lastError"] for one in targets()))
            print("tls.yml: scraped; refused with another password")


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        main()
    except Wrong as wrong:
        sys.exit(f"scraping: {wrong}")
    print("scraping: everything passed")
