"""The packages from installation to removal: run by `make packages`."""

import pathlib
import subprocess
import tempfile
import unittest

from box import ROOT, Box, run, wait_for
from packages import DEB, NEWER_DEB, NEWER_RPM, NEWER_VERSION, RPM, deb_field, install

CONFFILE = "/etc/default/skmem-exporter"
OURS = "SKMEM_SAMPLE_INTERVAL=2s\n"
# Where dpkg, systemd and the journal write down what they have done.
DIARIES = "/proc /sys /dev /run /tmp /var/log /var/lib/dpkg /var/lib/systemd /var/cache"


class Deb(unittest.TestCase):
    """Each test has a Debian of its own on which the package has never been."""

    def setUp(self):
        self.box = self.enterContext(Box())

    def files(self):
        """Every path of the system that is not a diary's."""
        pruned = " -o ".join(f"-path {path}" for path in DIARIES.split())
        return set(self.box.sh(f"find / '(' {pruned} ')' -prune -o -print").stdout.splitlines())

    def state(self, unit):
        """Whether it runs, and whether it will after a boot."""
        said = self.box.unit("ActiveState", "UnitFileState", unit=unit)
        return said["ActiveState"], said["UnitFileState"]

    def test_from_installation_to_purge(self):
        before = self.files()
        install(self.box, DEB)
        with self.subTest("it is enabled and runs; its socket is not and does not"):
            wait_for("a complete sample", self.box.is_answering)
            self.assertIn("skmem_exporter_build_info", self.box.curl("/metrics").stdout)
            self.assertEqual(self.state("skmem-exporter.service"), ("active", "enabled"))
            self.assertEqual(self.state("skmem-exporter.socket"), ("inactive", "disabled"))
            self.assertEqual(self.box.sh("skmem-exporter check-config >/dev/null; skmem-exporter healthcheck").returncode, 0)

        with self.subTest("an upgrade restarts it and keeps what was edited"):
            pid = self.box.unit("MainPID")
            self.box.write(CONFFILE, OURS)
            self.assertNotIn("Configuration file", install(self.box, NEWER_DEB).stdout)
            self.assertEqual(self.box.sh(f"cat {CONFFILE}").stdout, OURS)
            self.assertNotIn(self.box.unit("MainPID"), (pid, "0"))
            wait_for("a complete sample", self.box.is_answering)
            self.assertEqual(self.state("skmem-exporter.service"), ("active", "enabled"))
            version = self.box.sh("dpkg-query --show --showformat='${Version}' skmem-exporter").stdout
            self.assertEqual(version, f"{NEWER_VERSION}-1")

        with self.subTest("what was disabled and stopped stays so"):
            self.box.sh("systemctl disable --now skmem-exporter.service")
            install(self.box, NEWER_DEB)
            self.assertEqual(self.state("skmem-exporter.service"), ("inactive", "disabled"))
            self.box.sh("systemctl enable --now skmem-exporter.service")
            wait_for("a complete sample", self.box.is_answering)

        with self.subTest("removed, it has ended, and of its files only the settings are left"):
            self.box.sh("dpkg --remove skmem-exporter")
            self.assertEqual(self.box.unit("ActiveState"), "inactive")
            self.assertEqual(self.box.sh("grep -ls skmem /proc/[0-9]*/comm", check=False).stdout, "")
            self.assertEqual(self.box.sh(f"cat {CONFFILE}").stdout, OURS)
            self.assertEqual({path for path in self.files() - before if not path.startswith("/etc/")}, set())

        with self.subTest("purged, nothing is left"):
            self.box.sh("dpkg --purge skmem-exporter")
            self.assertEqual(self.files() - before, set())
            self.assertEqual(self.box.sh("find /var/lib/systemd /var/lib/dpkg -name '*skmem*'").stdout, "")
            self.assertEqual(self.box.unit("LoadState"), "not-found")

    def test_a_socket_in_use_survives_an_upgrade_and_ends_with_the_package(self):
        install(self.box, DEB)
        self.box.sh(
            "install -D -m 644 -t /etc/systemd/system/skmem-exporter.service.d /usr/share/skmem-exporter/systemd/socket.conf;"
            "systemctl daemon-reload; systemctl stop skmem-exporter.service; systemctl enable --now skmem-exporter.socket"
        )
        wait_for("a complete sample", self.box.is_answering)
        pid = self.box.unit("MainPID")
        install(self.box, NEWER_DEB)
        wait_for("a complete sample", self.box.is_answering)
        self.assertNotIn(self.box.unit("MainPID"), (pid, "0"))
        self.assertEqual(self.state("skmem-exporter.socket"), ("active", "enabled"))
        self.box.sh("dpkg --remove skmem-exporter")
        self.assertEqual(self.box.net("ss", "-Hltn").stdout, "")

    def test_no_word_from_lintian(self):
        said = run("lintian", "--fail-on", "error,warning", DEB, check=False)
        self.assertEqual([said.returncode, said.stdout], [0, ""], said.stdout + said.stderr)

    def test_says_what_it_is(self):
        self.assertEqual(deb_field(DEB, "Package"), "skmem-exporter")
        # Static, so no C library as new as this machine's.
        self.assertEqual(deb_field(DEB, "Depends"), "init-system-helpers (>= 1.52)")


class Rpm(unittest.TestCase):
    """Installed with rpm into a root of its own, which is a Debian's: scriptlets find sh and systemctl there, no presets and no
    running systemd."""

    def setUp(self):
        self.root = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))
        base = subprocess.run([ROOT / "scripts/container-base"], stdout=subprocess.PIPE, text=True, check=True).stdout.strip()
        run("tar", "--extract", "--file", base, "--directory", self.root, "--exclude=./dev/*")

    def rpm(self, *arguments, check=True):
        return run("rpm", "--root", self.root, *arguments, check=check)

    def wanted(self):
        """Whether the service starts at boot."""
        return (self.root / "etc/systemd/system/multi-user.target.wants/skmem-exporter.service").is_symlink()

    def test_from_installation_to_removal(self):
        # Its dependency, /bin/sh, is there and no package of this kind has brought it.
        self.rpm("--install", "--nodeps", RPM)
        self.assertEqual(self.rpm("--verify", "--nodeps", "skmem-exporter").stdout, "")
        self.assertIn("skmem-exporter ", run("chroot", self.root, "skmem-exporter", "--version").stdout)
        # systemd presets what no policy speaks of to be enabled, as on this root; Fedora's policy is to disable.
        self.assertTrue(self.wanted())
        self.assertFalse((self.root / "etc/systemd/system/sockets.target.wants/skmem-exporter.socket").exists())

        conffile = self.root / CONFFILE[1:]
        conffile.write_text(OURS)
        run("chroot", self.root, "systemctl", "disable", "skmem-exporter.service")
        self.rpm("--upgrade", "--nodeps", NEWER_RPM)
        self.assertEqual(self.rpm("--query", "skmem-exporter").stdout.strip(), f"skmem-exporter-{NEWER_VERSION}-1.x86_64")
        self.assertEqual(conffile.read_text(), OURS)
        self.assertFalse(self.wanted(), "disabled stays disabled")

        run("chroot", self.root, "systemctl", "enable", "skmem-exporter.service", "skmem-exporter.socket")
        self.rpm("--erase", "skmem-exporter")
        self.assertFalse(self.wanted())
        left = {path.relative_to(self.root).as_posix() for path in self.root.rglob("*skmem*")}
        # What was edited is kept under another name, as rpm does.
        self.assertEqual(left, {CONFFILE[1:] + ".rpmsave"})

    def test_says_what_it_is(self):
        query = lambda *what: run("rpm", "--query", "--package", *what, RPM).stdout
        self.assertEqual(query("--configfiles").split(), [CONFFILE])
        # "n" is noreplace: kept also where the new package brings another.
        flags = query("--queryformat", "[%{FILENAMES} %{FILEFLAGS:fflags}\n]")
        self.assertIn(f"{CONFFILE} cn\n", flags)
        self.assertIn("/usr/share/licenses/skmem-exporter/LICENSE", query("--list"))
        self.assertIn("/usr/share/man/man1/skmem-exporter.1", query("--docfiles"))
        needs = {line.split()[0] for line in query("--requires").splitlines() if not line.startswith(("rpmlib(", "config("))}
        self.assertEqual(needs, {"/bin/sh"})
        self.assertEqual(query("--queryformat", "%{LICENSE} %{ARCH} %{URL}").split()[:2], ["Apache-2.0", "x86_64"])

    def test_carries_what_the_deb_carries(self):
        same = lambda path: path.startswith(("/usr/bin/", "/usr/lib/systemd/", "/usr/share/skmem-exporter/", "/etc/"))
        deb = {line.split()[-1][1:] for line in run("dpkg-deb", "--contents", DEB).stdout.splitlines() if line[0] == "-"}
        rpm = set(run("rpm", "--query", "--package", "--list", RPM).stdout.splitlines())
        self.assertEqual(set(filter(same, rpm)), set(filter(same, deb)))


if __name__ == "__main__":
    unittest.main()
