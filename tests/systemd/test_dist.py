"""What `make dist` has made beside the packages: run by `make packages`."""

import io
import json
import subprocess
import tarfile
import unittest

from box import ROOT, Box, run, wait_for
from packages import DEB, RPM, deb_field

DIST = ROOT / "target/dist"
VERSION = deb_field(DEB, "Version").removesuffix("-1")
NAME = f"skmem-exporter-{VERSION}"


class Dist(unittest.TestCase):
    def tarball(self, name):
        return self.enterContext(tarfile.open(DIST / name))

    def test_checksums_are_of_everything(self):
        run("sha256sum", "--check", "--strict", "SHA256SUMS", cwd=DIST)
        listed = {line.split()[1] for line in (DIST / "SHA256SUMS").read_text().splitlines()}
        there = {path.name for path in DIST.iterdir()} - {"SHA256SUMS"}
        self.assertEqual(listed, there)
        self.assertLessEqual({DEB.name, RPM.name, f"{NAME}-linux-x86_64.tar.gz", f"{NAME}.cdx.json"}, there)

    def test_the_binary_runs_where_nothing_else_is(self):
        binary = self.tarball(f"{NAME}-linux-x86_64.tar.gz").extractfile(f"{NAME}-linux-x86_64/skmem-exporter").read()
        # None of the machine that built it, which would differ on another.
        for path in str(ROOT), "/.cargo/":
            self.assertNotIn(path.encode(), binary)
        image = io.BytesIO()
        with tarfile.open(fileobj=image, mode="w") as tar:
            entry = tarfile.TarInfo("skmem-exporter")
            entry.size, entry.mode = len(binary), 0o755
            tar.addfile(entry, io.BytesIO(binary))
        run("docker", "import", "-", "skmem-test/empty", text=False, input=image.getvalue())
        # As nobody, in an image without /etc/passwd, libraries or a shell.
        box = "docker", "run", "--rm", "--network=none", "--user=65534", "skmem-test/empty", "/skmem-exporter"
        said = run(*box, "diagnose", "--duration=3s", "--format=json", check=False)
        self.assertEqual(json.loads(said.stdout)["generator"]["version"], VERSION, said.stderr)
        # It knows localhost without an /etc/hosts, and loads nothing to find out. Which of its two addresses is complained of
        # depends on whether the box has IPv6.
        said = run(*box, "healthcheck", "--web.listen-address=localhost:10477", check=False)
        self.assertIn("is the exporter running, and listening there?", said.stderr)
        self.assertEqual(said.returncode, 1, said.stderr)

    def test_the_tarball_installs_as_documented(self):
        page = (ROOT / "docs/systemd.md").read_text()
        commands = page.split("## From the tarball")[1].split("```sh\n")[1].split("```")[0].replace("VERSION", VERSION)
        name = f"{NAME}-linux-x86_64.tar.gz"
        with Box() as box:
            box.put(DIST / name, f"/srv/{name}")
            box.sh(f"cd /srv\n{commands}")
            wait_for("a complete sample", box.is_answering)
            # The drop-ins are where they say they are.
            box.sh("grep -ho '/usr/share/skmem-exporter/[^ ]*' /etc/default/skmem-exporter | xargs ls")

    def test_the_source_is_the_commit(self):
        names = self.tarball(f"{NAME}.tar.gz").getnames()
        wanted = run("git", "ls-tree", "-r", "--name-only", "HEAD", cwd=ROOT).stdout.splitlines()
        self.assertLessEqual({f"{NAME}/{name}" for name in wanted}, set(names))
        self.assertIn(f"{NAME}/Cargo.lock", names)

    def test_the_bill_of_materials_is_whole(self):
        bill = json.loads((DIST / f"{NAME}.cdx.json").read_text())
        listed = {(part["name"], part["version"]) for part in bill["components"]}
        tree = subprocess.run(
            ["cargo", "tree", "--locked", "--edges=normal", "--prefix=none", "--format={p}"],
            cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True,
        ).stdout  # fmt: skip
        used = {tuple(line.split()[:2]) for line in tree.splitlines() if line.strip()}
        used = {(name, version.removeprefix("v")) for name, version in used if name != "skmem-exporter"}
        self.assertGreater(len(used), 50)
        self.assertLessEqual(used, listed)
        self.assertNotIn(str(ROOT), json.dumps(bill))


if __name__ == "__main__":
    unittest.main()
