"""Builds the image from its Dockerfile and runs it as the DaemonSet does, beside culprits on the host and in other containers.

Run by `make image` inside scripts/with-container-engine. Takes the capabilities, flags and mounts from what kustomize renders.
"""

import base64
import contextlib
import json
import os
import pathlib
import re
import signal
import ssl
import subprocess
import sys
import tarfile
import tempfile
import time
import urllib.error
import urllib.request

import yaml

# Everything asked is on this machine.
os.environ["no_proxy"] = "*"
ROOT = pathlib.Path(__file__).resolve().parents[2]
CGROUPS = pathlib.Path("/sys/fs/cgroup")
IMAGE = "skmem-exporter"
PORT = 20477  # of loopback; nothing else in this project uses it
BUILD_SECONDS = 1500  # two cores that others use, too
WAIT_SECONDS = 60
STOP_SECONDS = 8  # well before the engine kills it; the rest is the engine
# How far the size may be from what the documents say, in MB. Further, and they are wrong or something got in that should not.
SIZE_STRAY = 0.5
CONNECTIONS = 10
LEAST = 1 << 20  # bytes that each culprit holds at least
PODS = ("0b9f4a1e-7c3d-4e2f-8a1b-2c3d4e5f6a7b", "1c8e5b2f-8d4e-4f30-9b2c-3d4e5f6a7b8c")


def run(*command, timeout=WAIT_SECONDS, **more):
    result = subprocess.run(command, cwd=ROOT, capture_output=True, encoding="utf-8", timeout=timeout, check=False, **more)
    if result.returncode != 0:
        sys.exit(f"image: {' '.join(map(str, command))}: exit {result.returncode}\n{result.stdout}{result.stderr}")
    return result.stdout.strip()


def expect(is_so, what):
    if not is_so:
        sys.exit(f"image: {what}")


def until(what, ask):
    """The first answer of `ask` that is true, within WAIT_SECONDS."""
    end = time.monotonic() + WAIT_SECONDS
    while True:
        answer = ask()
        if answer:
            return answer
        expect(time.monotonic() < end, f"not within {WAIT_SECONDS} s: {what}")
        time.sleep(0.2)


def get(path, scheme="http", **more):
    try:
        with urllib.request.urlopen(f"{scheme}://127.0.0.1:{PORT}{path}", timeout=5, **more) as response:
            return response.read().decode()
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return ""


SERIES = re.compile(r'^(\w+)(?:\{(.*)\})? (\S+)$')
LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')


def series(text):
    """Name, labels and value of each line."""
    for line in text.splitlines():
        if match := SERIES.match(line):
            yield match[1], dict(LABEL.findall(match[2] or "")), float(match[3])


def value(text, name, **labels):
    found = [number for one, said, number in series(text) if one == name and labels.items() <= said.items()]
    return found[0] if len(found) == 1 else None


UNVERIFIED = ssl._create_unverified_context()  # as kubelet asks
# One name and password, and what a client sends of them. The hash is bcrypt's, of the least cost it takes.
USERS = "basic_auth_users: {prometheus: '$2b$04$nX2NanP6OtkOm4TiqV/szuyyPEmoB312El8tE/GkKCUGzyn1QHt16'}\n"
LOGIN = "Basic " + base64.b64encode(b"prometheus:for-tests").decode()


def status(path, **headers):
    """The status of an answer over TLS; None without one."""
    request = urllib.request.Request(f"https://127.0.0.1:{PORT}{path}", headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=5, context=UNVERIFIED) as response:
            return response.status
    except urllib.error.HTTPError as error:
        return error.code
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return None


@contextlib.contextmanager
def secrets(users):
    """What kubelet makes of the Secret skmem-exporter-web: a directory that only root reads."""
    with tempfile.TemporaryDirectory() as directory:
        place = pathlib.Path(directory)
        key, certificate = place / "tls.key", place / "tls.crt"
        subject = ["-subj", "/CN=skmem-exporter", "-addext", "subjectAltName=DNS:skmem-exporter"]
        new = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "1"]
        run("openssl", "req", "-x509", *new, *subject, "-keyout", key, "-out", certificate)
        (place / "web.yml").write_text(f"tls_server_config: {{cert_file: tls.crt, key_file: tls.key}}\n{users}", encoding="utf-8")
        for file in place.iterdir():
            file.chmod(0o400)
        yield directory


# The image


def build():
    builder = run(ROOT / "tests/image/builder-base", timeout=BUILD_SECONDS)
    environment = "ENV PATH=/usr/local/rust/bin:/usr/bin:/bin CARGO_HOME=/usr/local/cargo"
    run("docker", "import", "--change", environment, builder, "builder", timeout=BUILD_SECONDS)
    revision = run("git", "rev-parse", "HEAD")
    # Without network: whatever is not in Cargo.lock cannot get in. The classic builder needs no plugin.
    arguments = ["--network", "none", "--build-arg", "BUILDER=builder", "--build-arg", f"REVISION={revision}"]
    started = time.monotonic()
    run("docker", "build", *arguments, "--tag", IMAGE, ".", timeout=BUILD_SECONDS, env={**os.environ, "DOCKER_BUILDKIT": "0"})
    print(f"built in {time.monotonic() - started:.0f} s")
    return revision


def judge_image(revision):
    (image,) = json.loads(run("docker", "image", "inspect", IMAGE))
    settings = image["Config"]
    expect(settings["Entrypoint"] == ["/skmem-exporter"] and not settings["Cmd"], f"entry point {settings['Entrypoint']}")
    expect(list(settings["ExposedPorts"]) == ["10477/tcp"], f"ports {settings['ExposedPorts']}")
    expect(settings["Healthcheck"]["Test"] == ["CMD", "/skmem-exporter", "healthcheck"], f"health {settings['Healthcheck']}")
    expect(settings["User"] == "0:0", f"user {settings['User']}")
    labels = {name.removeprefix("org.opencontainers.image."): text for name, text in settings["Labels"].items()}
    version = run("docker", "run", "--rm", "--network", "none", IMAGE, "--version")
    expect(version == f"skmem-exporter {labels['version']} (revision {revision})", f"{version}, labels {labels}")
    expect(labels["licenses"] == "Apache-2.0" and labels["revision"] == revision, f"labels {labels}")
    size = image["Size"] / 1e6
    for document in "README.md", "docs/image.md":
        told = re.findall(r"(?:an image of|an empty base:) (\d+\.\d) MB", (ROOT / document).read_text(encoding="utf-8"))
        expect(len(told) == 1 and abs(float(told[0]) - size) < SIZE_STRAY, f"{size:.1f} MB, where {document} says {told}")

    with tempfile.TemporaryDirectory() as directory:
        container = run("docker", "create", IMAGE)
        archive = pathlib.Path(directory, "image.tar")
        run("docker", "export", "--output", archive, container)
        run("docker", "rm", container)
        with tarfile.open(archive) as tar:
            # What the engine puts into every container is empty.
            files = {member.name: member.size for member in tar if member.isfile() and member.size > 0}
            expect(files.keys() == {"skmem-exporter", "LICENSE"}, f"files {files}")
            expect(tar.extractfile("LICENSE").read() == (ROOT / "LICENSE").read_bytes(), "another licence")
    print(f"image: {image['Size'] / 1e6:.1f} MB, files {files}, {image['Architecture']}")


# The host it runs on


@contextlib.contextmanager
def culprit_on_host():
    command = ["/usr/bin/python3", ROOT / "tests/programs/culprit.py", "host-culprit", str(CONNECTIONS)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, encoding="utf-8") as process:
        try:
            expect(process.stdout.readline() == "holding\n", "the culprit on the host did not start")
            yield process.pid
        finally:
            process.kill()


@contextlib.contextmanager
def culprit_in_container(name, parent):
    """With a network namespace of its own, below the cgroup `parent`. Yields its id and pid."""
    mount = f"{ROOT}/tests/programs:/tests:ro"
    options = ["--detach", "--network", "none", "--volume", mount, "--cgroup-parent", parent]
    container = run("docker", "run", *options, "base", "python3", "/tests/culprit.py", name, str(CONNECTIONS))
    try:
        until(f"{name} holds memory", lambda: "holding" in output(container))
        yield container, int(run("docker", "inspect", "--format", "{{.State.Pid}}", container))
    finally:
        run("docker", "rm", "--force", container)
        remove_cgroups(parent)


def output(container):
    result = subprocess.run(["docker", "logs", container], capture_output=True, encoding="utf-8", timeout=WAIT_SECONDS, check=False)
    expect("Traceback" not in result.stderr, result.stderr)
    return result.stdout + result.stderr


def remove_cgroups(parent):
    """The engine leaves the parents that it made. Whatever somebody else uses cannot be removed."""
    parts = pathlib.PurePosixPath(parent).parts[1:]
    for mount in CGROUPS.glob("*") if not (CGROUPS / "cgroup.controllers").exists() else [CGROUPS]:
        for depth in range(len(parts), 0, -1):
            with contextlib.suppress(OSError):
                mount.joinpath(*parts[:depth]).rmdir()


def daemon_set(overlay):
    rendered = run(ROOT / "target/tools/bin/kustomize", "build", f"deploy/kubernetes/{overlay}")
    (pod,) = [one["spec"]["template"]["spec"] for one in yaml.safe_load_all(rendered) if one["kind"] == "DaemonSet"]
    return pod


def docker_options(pod, secrets=None):
    """What the pod's fields are for the engine. A field that this does not know ends the test."""
    (container,) = pod["containers"]
    security = dict(container["securityContext"])
    options = ["--env", f"SKMEM_WEB_LISTEN_ADDRESS=127.0.0.1:{PORT}", "--health-interval", "1s"]
    options += ["--user", f"{security.pop('runAsUser')}:{security.pop('runAsGroup')}"]
    capabilities = security.pop("capabilities")
    for change in ("drop", "add"):
        for capability in capabilities[change]:
            options += [f"--cap-{change}", capability]
    expect(security.pop("readOnlyRootFilesystem") is True, "readOnlyRootFilesystem")
    expect(security.pop("allowPrivilegeEscalation") is False, "allowPrivilegeEscalation")
    options += ["--read-only", "--security-opt", "no-new-privileges"]
    expect(security.pop("seccompProfile") == {"type": "RuntimeDefault"}, "seccomp")  # what the engine does unless told otherwise
    expect(security.pop("appArmorProfile") == {"type": "Unconfined"}, "AppArmor")
    options += ["--security-opt", "apparmor=unconfined"]
    expect(security == {"privileged": False, "runAsNonRoot": False}, f"securityContext {security}")
    expect(pod["hostPID"] and pod["hostNetwork"], "the host's namespaces")
    options += ["--pid", "host", "--network", "host"]
    # As Kubernetes does where there is cgroup2.
    options += ["--cgroupns", "private"]
    options += ["--memory", container["resources"]["limits"]["memory"].replace("Mi", "m")]
    sources = {}
    for volume in pod["volumes"]:
        sources[volume["name"]] = volume["hostPath"]["path"] if "hostPath" in volume else secrets
    for mount in container["volumeMounts"]:
        expect(mount["readOnly"], f"{mount['name']} is writable")
        options += ["--volume", f"{sources[mount['name']]}:{mount['mountPath']}:ro"]
    for variable in container["env"]:
        # The host's own port may be taken.
        if variable["name"] != "SKMEM_WEB_LISTEN_ADDRESS":
            options += ["--env", f"{variable['name']}={variable['value']}"]
    return options, container


@contextlib.contextmanager
def exporter(overlay, *arguments, secrets=None):
    """Runs the image as the overlay says. Yields its id, and the container of the pod."""
    options, spec = docker_options(daemon_set(overlay), secrets)
    container = run("docker", "run", "--detach", *options, IMAGE, "--sample.interval=1s", *arguments)
    try:
        yield container, spec
        started = time.monotonic()
        run("docker", "stop", "--time", "10", container)
        took = time.monotonic() - started
        state = json.loads(run("docker", "inspect", container))[0]["State"]
        expect(state["ExitCode"] == 0 and not state["OOMKilled"], f"ended as {state}")
        expect(took < STOP_SECONDS, f"took {took:.1f} s to stop")
        print(f"{overlay}: stopped in {took:.2f} s")
    finally:
        if sys.exc_info()[0]:
            print(output(container), file=sys.stderr)
        run("docker", "rm", "--force", container)


def is_healthy(container):
    return run("docker", "inspect", "--format", "{{.State.Health.Status}}", container) == "healthy"


def seen(pid):
    """A scrape with a row of this process."""
    text = get("/metrics")
    held = value(text, "skmem_process_tcp_memory_bytes", pid=str(pid))
    return text if held and held >= LEAST else ""


def info(text, pid):
    (found,) = [labels for name, labels, _ in series(text) if name == "skmem_process_info" and labels["pid"] == str(pid)]
    return found


def main():
    run("docker", "import", run(ROOT / "scripts/container-base", timeout=BUILD_SECONDS), "base", timeout=BUILD_SECONDS)
    judge_image(build())
    # As kubelet names cgroups with its two drivers. The engine makes the containers' own below them.
    underscored = PODS[1].replace("-", "_")
    parents = (
        f"/kubepods/burstable/pod{PODS[0]}",
        f"/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{underscored}.slice",
    )
    with contextlib.ExitStack() as stack:
        host_pid = stack.enter_context(culprit_on_host())
        pods = [stack.enter_context(culprit_in_container(f"pod-culprit-{n}", parent)) for n, parent in enumerate(parents)]
        pids = [host_pid, *(pid for _, pid in pods)]

        with exporter("base") as (container, _):
            text = ""
            for pid in pids:
                text = until(f"a row of pid {pid}", lambda pid=pid: seen(pid))
            run("promtool", "check", "metrics", input=text + "\n")
            for capability in ("cap_dac_read_search", "cap_sys_ptrace", "cap_sys_admin"):
                expect(value(text, "skmem_exporter_capability", capability=capability) == 1, f"no {capability}")
            expect(value(text, "skmem_network_namespaces", outcome="sampled") >= 3, "namespaces")
            expect(value(text, "skmem_network_namespaces", outcome="failed") == 0, "namespaces fail")
            for (identity, pid), pod, parent in zip(pods, PODS, parents):
                labels = info(text, pid)
                expect(labels["container_id"] == identity and labels["pod_uid"] == pod, f"{labels}, not {identity} of {pod}")
                # The host's path, although the exporter is in a cgroup namespace of its own.
                expect(labels["cgroup"] == f"{parent}/{identity}", f"cgroup {labels['cgroup']}, not below {parent}")
                print(f"{labels['process']}: pod {pod}, container {identity[:12]}, cgroup {parent}/...")
            expect(info(text, host_pid)["pod_uid"] == "", "the host's culprit is in a pod")
            expect(get("/-/ready") and get("/-/healthy"), "not ready")
            until("the health check says healthy", lambda: is_healthy(container))
            asked = subprocess.run(
                ["docker", "exec", container, "/skmem-exporter", "diagnose", "--format", "json"],
                capture_output=True, encoding="utf-8", timeout=WAIT_SECONDS, check=False,
            )  # fmt: skip
            expect(asked.returncode in (0, 1), f"diagnose: exit {asked.returncode}: {asked.stderr}")
            holders = {holder["pid"] for holder in json.loads(asked.stdout)["processes"]}
            expect(holders >= set(pids), f"diagnose names {holders}, not all of {pids}")

        with exporter("overlays/own-namespace"):
            text = until(f"a row of pid {host_pid}", lambda: seen(host_pid))
            for pid in pids[1:]:
                expect(not seen(pid), f"pid {pid} is seen from another network namespace")
            expect(value(text, "skmem_exporter_capability", capability="cap_sys_admin") == 0, "CAP_SYS_ADMIN")
            expect(value(text, "skmem_network_namespaces", outcome="failed") == 0, "namespaces fail that it was told to leave")

        with secrets("") as directory, exporter("overlays/tls", secrets=directory) as (container, spec):
            asked = spec["readinessProbe"]["httpGet"]
            until("readinessProbe succeeds", lambda: get(asked["path"], asked["scheme"].lower(), context=UNVERIFIED))
            said = run("docker", "exec", container, *spec["livenessProbe"]["exec"]["command"])
            expect("is healthy" in said, said)
            # The mounted file cannot be used: not ready, and not to be killed.
            pathlib.Path(directory, "web.yml").write_text("[", encoding="utf-8")
            expect(not get(asked["path"], asked["scheme"].lower(), context=UNVERIFIED), "ready with a bad web.yml")
            said = run("docker", "exec", container, *spec["livenessProbe"]["exec"]["command"])
            expect("takes connections" in said, said)
            expect(not get("/-/healthy"), "it answers without TLS")

        with secrets(USERS) as directory, exporter("overlays/everything", secrets=directory) as (container, spec):
            until("it asks for a login", lambda: status("/metrics") == 401)
            for probe in ("livenessProbe", "readinessProbe"):
                said = run("docker", "exec", container, *spec[probe]["exec"]["command"])
                expect("asks for a password" in said, said)
            expect(status("/metrics", Authorization=LOGIN) == 200, "the login is refused")


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    main()
    print("image: everything passed")
