"""Boxes: containers in which a real systemd is process 1, in an engine that scripts/with-container-engine has started.

A box has network, pid, mount and cgroup namespaces of its own. It is given CAP_SYS_ADMIN, so that systemd may mount, and the
capabilities the exporter asks for; it is not privileged.
"""

import json
import os
import pathlib
import subprocess
import time
import urllib.parse

ROOT = pathlib.Path(__file__).resolve().parents[2]
IMAGE = "skmem-test/systemd"
URL = "http://localhost:10477"
# For what takes a machine two seconds at most when nothing else runs on it.
PATIENCE = 60
# For one command inside a box, package scripts included.
COMMAND_SECONDS = 120


def run(*command, check=True, text=True, **options):
    """Runs a command on the host; its output, both kinds, is in what is returned and in what is raised."""
    done = subprocess.run(
        [str(word) for word in command], text=text, capture_output=True, timeout=COMMAND_SECONDS, check=False, **options
    )
    if check and done.returncode:
        raise AssertionError(f"{' '.join(map(str, command))}: exit status {done.returncode}\n{done.stdout}{done.stderr}")
    return done


def wait_for(what, condition, seconds=PATIENCE, pause=0.1):
    """The first result of `condition` that is true; fails, saying `what`, after `seconds`."""
    until = time.monotonic() + seconds
    while True:
        result = condition()
        if result:
            return result
        if time.monotonic() > until:
            raise AssertionError(f"waited {seconds} s in vain for {what}")
        time.sleep(pause)


def import_image():
    """Gives the engine the small Debian that boxes are made of."""
    assert os.environ.get("DOCKER_HOST", "").startswith("unix:///tmp/skmem-engine."), (
        "these tests run under scripts/with-container-engine, as `make packages` does"
    )
    if not run("docker", "images", "--quiet", IMAGE).stdout:
        base = subprocess.run([ROOT / "scripts/container-base"], stdout=subprocess.PIPE, text=True, check=True).stdout.strip()
        run("docker", "import", base, IMAGE)


def host_is_hybrid():
    """Whether cgroup v1 controllers are mounted beside cgroup2, as on this kind of host the box's systemd must use both."""
    return run("stat", "--file-system", "--format=%T", "/sys/fs/cgroup").stdout.strip() != "cgroup2fs"


class Box:
    """A running container with systemd in it. `with Box() as box:` takes it away again."""

    def __init__(self):
        import_image()
        # systemd mounts the hierarchies itself, as seen from the box's cgroup namespace. The engine's own mount of a pure cgroup2 is
        # read-only, and where anything is mounted systemd leaves it alone.
        if host_is_hybrid():
            cgroups, init = ["--tmpfs=/sys/fs/cgroup"], ["/sbin/init", "systemd.unified_cgroup_hierarchy=0"]
        else:
            cgroups, init = [], ["sh", "-c", "umount /sys/fs/cgroup && exec /sbin/init"]
        self.id = run(
            "docker", "run", "--detach", "--network=none", "--cgroupns=private", "--tmpfs=/run", "--tmpfs=/tmp",
            *cgroups, "--env=container=docker",
            "--cap-add=SYS_ADMIN", "--cap-add=SYS_PTRACE", "--cap-add=DAC_READ_SEARCH",
            # Their profiles for containers forbid mounting, which every sandboxed service does.
            "--security-opt=seccomp=unconfined", "--security-opt=apparmor=unconfined",
            IMAGE, *init,
        ).stdout.strip()  # fmt: skip
        try:
            self.pid = run("docker", "inspect", "--format={{.State.Pid}}", self.id).stdout.strip()
            wait_for("systemd to boot", lambda: self.sh("systemctl is-system-running", check=False).stdout == "running\n")
        except BaseException:
            self.__exit__()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *_):
        run("docker", "rm", "--force", "--volumes", self.id)

    def sh(self, script, check=True, user="root"):
        """Runs a shell script in the box."""
        return run("docker", "exec", f"--user={user}", self.id, "sh", "-euc", script, check=check)

    def put(self, path, inside, mode="644"):
        """Copies a file of the host into the box."""
        self.write(inside, pathlib.Path(path).read_bytes(), mode)

    def write(self, inside, content, mode="644"):
        """Writes a file in the box."""
        content = content.encode() if isinstance(content, str) else content
        script = f"mkdir -p $(dirname {inside}) && cat > {inside} && chmod {mode} {inside}"
        run("docker", "exec", "--interactive", self.id, "sh", "-euc", script, text=False, input=content)

    def net(self, *command, check=True):
        """Runs a command of the host in the box's network namespace."""
        return run("nsenter", f"--net=/proc/{self.pid}/ns/net", *command, check=check)

    def curl(self, path, check=True):
        """What the exporter in the box answers."""
        url = urllib.parse.urljoin(URL, path)
        return self.net("curl", "--noproxy", "*", "--silent", "--show-error", "--fail", "--max-time", "30", url, check=check)

    def metrics(self):
        """The samples of a scrape, as the reference parser of Prometheus' own client reads them."""
        from prometheus_client.parser import text_string_to_metric_families

        text = self.curl("/metrics").stdout
        return [sample for family in text_string_to_metric_families(text) for sample in family.samples]

    def value(self, name, **labels):
        """The one value of the series that have these labels, or None."""
        found = [sample.value for sample in self.metrics() if sample.name == name and labels.items() <= sample.labels.items()]
        assert len(found) < 2, f"{name}{json.dumps(labels)} stands for {len(found)} series"
        return found[0] if found else None

    def is_answering(self):
        """Whether there is a complete sample to scrape."""
        return self.curl("/-/ready", check=False).returncode == 0

    def unit(self, *properties, unit="skmem-exporter.service"):
        """What systemd says of the unit; one text for one property, otherwise a dict."""
        shown = self.sh(f"systemctl show {unit} --property={','.join(properties)}").stdout
        said = dict(line.split("=", 1) for line in shown.splitlines())
        return said[properties[0]] if len(properties) == 1 else {name: said[name] for name in properties}

    def journal(self, unit="skmem-exporter.service", since=""):
        """What the unit has logged, and systemd of it."""
        return self.sh(f"journalctl --sync; journalctl --no-pager --unit={unit} {since}").stdout

    def drop_in(self, name, content):
        """Adds a drop-in to the service."""
        self.write(f"/etc/systemd/system/skmem-exporter.service.d/{name}.conf", content)
        self.sh("systemctl daemon-reload")
