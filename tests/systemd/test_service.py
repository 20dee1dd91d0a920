"""The package's service under a real systemd: run by `make packages`."""

import json
import pathlib
import subprocess
import sys
import threading
import time
import unittest

from box import PATIENCE, ROOT, URL, Box, run, wait_for
from packages import DEB, install

HERE = pathlib.Path(__file__).resolve().parent
# The least that does not make the exporter warn that a busy host restarts it.
WATCHDOG_SECONDS = 10
# A sampler counts as hung after 30 s and two intervals of 1 s, from when on the watchdog is not fed.
HUNG_SECONDS = 32
# systemd-analyze's figures times ten, for systemd 252. 0.1 of each is for capset(2), with which the exporter takes from its own
# threads what they do not need; CAP_SYS_ADMIN is the rest of the difference.
EXPOSURE_MAX, EXPOSURE_MAX_WITH_NETNS = 19, 22
# Bits of CapEff: CAP_DAC_READ_SEARCH, CAP_SYS_PTRACE and CAP_SYS_ADMIN.
SEES_OWNERS, SEES_NAMESPACES = 1 << 2 | 1 << 19, 1 << 21
EXAMPLES = "/usr/share/skmem-exporter/systemd"
DROP_INS = "/etc/systemd/system/skmem-exporter.service.d"
# Settings of these tests: everything as it comes, but without waiting for the next sample.
QUICK = "SKMEM_SAMPLE_INTERVAL=1s\n"


def text_of(path):
    """A file of /proc; nothing of a process that has ended."""
    try:
        return path.read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""


class Service(unittest.TestCase):
    """Each test finds the service as installed, running and with nothing added, and may leave it any way."""

    @classmethod
    def setUpClass(cls):
        cls.box = cls.enterClassContext(Box())
        install(cls.box, DEB)
        cls.box.put(ROOT / "tests/programs/culprit.py", "/opt/culprit.py")
        cls.box.sh("useradd --system culprit")

    def setUp(self):
        self.box.write("/etc/default/skmem-exporter", QUICK)
        self.box.sh(
            f"systemctl stop skmem-exporter.socket skmem-exporter.service; rm -rf {DROP_INS}; systemctl daemon-reload;"
            "systemctl reset-failed; journalctl --rotate; journalctl --vacuum-time=1us"
        )
        self.box.sh("systemctl start skmem-exporter.service")

    def started(self):
        """Waits for the first complete sample, and returns the process."""
        wait_for("a complete sample", self.box.is_answering)
        return self.box.unit("MainPID")

    def restarted(self, before):
        """Waits until another process serves, and returns it."""
        wait_for("another process", lambda: self.box.unit("MainPID") not in (before, "0"), PATIENCE)
        return self.started()

    def threads(self, pid):
        """What /proc/PID/task/TID/status says of each thread."""
        said = self.box.sh(f"cd /proc/{pid}/task; for thread in *; do cat $thread/status; echo; done").stdout
        return [dict(line.split(":\t", 1) for line in status.splitlines()) for status in said.strip().split("\n\n")]

    def culprit(self, unit, netns=None):
        """Starts a program of another user that holds memory, and returns its pid in the box."""
        place = f"--property=NetworkNamespacePath=/run/netns/{netns}" if netns else ""
        self.box.sh(f"systemd-run --unit={unit} --uid=culprit {place} python3 /opt/culprit.py {unit} 8")
        self.addCleanup(self.box.sh, f"systemctl stop {unit}")
        return self.box.unit("MainPID", unit=f"{unit}.service")

    def test_runs_with_what_it_needs_and_nothing_else(self):
        pid = self.started()
        said = self.box.unit("ActiveState", "SubState", "Type", "NRestarts", "StatusText", "TasksCurrent", "TasksMax")
        self.assertEqual([said["ActiveState"], said["SubState"], said["Type"]], ["active", "running", "notify"])
        self.assertEqual(said["NRestarts"], "0")
        self.assertTrue(said["StatusText"])
        # Half of them are to spare.
        self.assertLess(int(said["TasksCurrent"]), int(said["TasksMax"]) / 2)
        threads = self.threads(pid)
        self.assertGreater(len(threads), 2)
        for status in threads:
            self.assertNotIn("0", status["Uid"].split())
            for kind in "CapEff", "CapPrm", "CapBnd":
                self.assertEqual(int(status[kind], 16) & ~SEES_OWNERS, 0, kind)
            self.assertEqual([status["NoNewPrivs"], status["Seccomp"]], ["1", "2"])
        # Of what the unit gives, the thread that reads the host keeps all and those that answer strangers keep nothing.
        self.assertEqual({int(status["CapEff"], 16) for status in threads}, {0, SEES_OWNERS})
        self.assertEqual([int(status["CapEff"], 16) for status in threads if status["Name"] == "sampler"], [SEES_OWNERS])
        self.assertIn("missing=\"other network namespaces", self.box.journal())
        # The limits stand in the kernel, whichever kind of hierarchy has the controller.
        limits = self.box.sh(
            "cd /sys/fs/cgroup; find . -path '*/skmem-exporter.service/*'"
            " '(' -name memory.max -o -name memory.limit_in_bytes -o -name pids.max ')' -exec cat '{}' +"
        ).stdout.split()
        self.assertEqual(sorted(limits), ["128", str(256 << 20)])

    def test_nothing_fails_and_nothing_is_complained_of(self):
        self.started()
        failing = [sample.labels for sample in self.box.metrics() if sample.name == "skmem_source_success" and not sample.value]
        self.assertEqual(failing, [])
        said = [line for line in self.box.journal().splitlines() if "level=" in line]
        self.assertTrue(said)
        self.assertEqual([line for line in said if "level=info" not in line], [])

    def test_the_metrics_are_well_formed(self):
        self.started()
        subprocess.run(["promtool", "check", "metrics"], input=self.box.curl("/metrics").stdout, text=True, check=True)

    def test_sees_the_sockets_of_other_users(self):
        pid = self.culprit("report-writer")
        memory = lambda: self.box.value("skmem_process_tcp_memory_bytes", pid=pid)
        wait_for("the culprit's row", lambda: self.box.is_answering() and memory())
        self.assertGreater(memory(), 1 << 20)
        self.assertEqual(self.box.value("skmem_tcp_attributed_memory_bytes", owner="unresolved"), 0)
        self.assertEqual(self.box.value("skmem_process_info", pid=pid, systemd_unit="report-writer.service"), 1)

    def test_diagnose_asks_the_service(self):
        # A daemon that has watched for less than that knows of no stall, and is not believed.
        self.box.write("/etc/default/skmem-exporter", QUICK + "SKMEM_STALL_AFTER=1s\n")
        self.box.sh("systemctl restart skmem-exporter.service")
        self.started()
        time.sleep(3)
        said = self.box.sh("skmem-exporter diagnose --format json", check=False)
        self.assertEqual(json.loads(said.stdout)["generator"]["mode"], "daemon", said.stderr)

    def test_commands_find_the_service_elsewhere_by_its_settings(self):
        self.box.write("/etc/default/skmem-exporter", QUICK + "SKMEM_WEB_LISTEN_ADDRESS=127.0.0.1:10478\n")
        self.box.sh("systemctl restart skmem-exporter.service")
        self.assertNotEqual(self.box.sh("skmem-exporter healthcheck", check=False).returncode, 0)
        told = [line for line in (ROOT / "docs/systemd.md").read_text().splitlines() if line.startswith("sh -c 'set -a; ")]
        self.assertEqual([line.split()[-1] for line in told], ["diagnose'"])
        for command in "healthcheck", "check-config":
            self.box.sh(told[0].replace("diagnose", command))
        self.assertIn('"mode":', self.box.sh(told[0].replace("diagnose'", "diagnose --format json'"), check=False).stdout)

    def test_a_key_may_be_for_root_alone(self):
        self.box.write("/etc/skmem-exporter/web.yml", "http_server_config: {headers: {X-Frame-Options: deny}}\n", mode="600")
        self.addCleanup(self.box.sh, "rm -r /etc/skmem-exporter")
        self.box.write("/etc/default/skmem-exporter", QUICK + "SKMEM_WEB_CONFIG_FILE=/etc/skmem-exporter/web.yml\n")
        self.box.sh("systemctl restart skmem-exporter.service")
        self.started()
        self.assertIn("x-frame-options: deny", self.box.net("curl", "--noproxy", "*", "--silent", "--head", f"{URL}/metrics").stdout.lower())

    def test_a_port_that_the_socket_holds_is_said(self):
        """The socket without its drop-in."""
        self.box.sh("systemctl stop skmem-exporter.service; systemctl start skmem-exporter.socket")
        self.box.sh("systemctl start skmem-exporter.service", check=False)
        wait_for("the complaint", lambda: "cannot listen on :10477" in self.box.journal())

    def test_is_restarted_after_a_crash(self):
        for signal in "SEGV", "KILL":
            with self.subTest(signal):
                pid = self.started()
                # Rust's handler of SIGSEGV lets a fault happen again, without itself in the way; a signal sent does not come
                # again by itself.
                self.box.sh(f"kill -{signal} {pid}; sleep 0.5; kill -{signal} {pid} || true")
                self.restarted(pid)
        self.assertEqual(self.box.unit("NRestarts"), "2")

    def shorten_watchdog(self):
        """As shipped it waits a minute, which is not what is tested."""
        self.box.drop_in("watchdog", f"[Service]\nWatchdogSec={WATCHDOG_SECONDS}s\n")
        self.box.sh("systemctl restart skmem-exporter.service")

    def test_the_watchdog_ends_a_daemon_that_hangs(self):
        self.assertEqual(self.box.unit("WatchdogUSec"), "1min")
        self.shorten_watchdog()
        pid = self.started()
        # It is fed, or it would end a healthy one.
        time.sleep(2 * WATCHDOG_SECONDS)
        self.assertEqual(self.box.unit("MainPID"), pid)
        self.box.sh(f"kill -STOP {pid}")
        self.restarted(pid)
        self.assertIn("Watchdog timeout", self.box.journal())

    def test_the_watchdog_ends_a_daemon_whose_sampler_hangs(self):
        self.shorten_watchdog()
        pid = self.started()
        [outside] = [
            status.parent.name
            for status in pathlib.Path("/proc").glob("[0-9]*/status")
            if f"\t{pid}\n" in (text := text_of(status)).partition("NSpid:")[2].partition("\n")[0] + "\n"
            and text.startswith("Name:\tskmem-exporter\n")
        ]
        holder = subprocess.Popen(
            [sys.executable, HERE / "hold_thread.py", outside, "sampler"], stdout=subprocess.PIPE, text=True
        )
        self.addCleanup(holder.stdout.close)
        self.addCleanup(holder.wait)
        self.addCleanup(holder.kill)
        self.assertEqual(holder.stdout.readline(), "held\n")
        # The threads that answer do not hang: without the watchdog this would go on for ever.
        self.assertIn("skmem_tcp_memory_bytes", self.box.curl("/metrics").stdout)
        wait_for("another process", lambda: self.box.unit("MainPID") != pid, HUNG_SECONDS + WATCHDOG_SECONDS + PATIENCE)
        self.restarted(pid)
        self.assertIn("Watchdog timeout", self.box.journal())

    def test_stops_at_once_and_leaves_nothing(self):
        self.started()
        self.box.sh("systemctl stop skmem-exporter.service")
        said = self.box.unit("ActiveState", "Result", "ExecMainCode", "ExecMainStatus")
        # 1 is CLD_EXITED: it ended by itself.
        self.assertEqual(list(said.values()), ["inactive", "success", "1", "0"], said)
        self.assertIn("Deactivated successfully", self.box.journal())
        left = self.box.sh("grep -ls skmem /proc/[0-9]*/comm; ls -d /tmp/*skmem* /var/tmp/*skmem* /run/*skmem*", check=False)
        self.assertEqual(left.stdout, "")
        self.assertEqual(self.box.sh("getent passwd skmem-exporter", check=False).stdout, "")

    def test_socket_activation(self):
        self.box.sh(
            f"install -D -m 644 -t {DROP_INS} {EXAMPLES}/socket.conf; systemctl daemon-reload;"
            "systemctl stop skmem-exporter.service; systemctl start skmem-exporter.socket"
        )
        self.assertEqual(self.box.unit("ActiveState"), "inactive")
        self.assertIn(":10477", self.box.net("ss", "-Hltn").stdout)
        # The connection itself starts the service, and is answered by it.
        self.assertEqual(self.box.curl("/-/healthy").returncode, 0)
        self.assertEqual(self.box.unit("ActiveState"), "active")
        pid = self.started()

        answers, done = [], threading.Event()

        def scrape():
            while not done.is_set():
                answers.append(self.box.curl("/-/healthy", check=False).returncode)

        scraper = threading.Thread(target=scrape)
        scraper.start()
        try:
            for _ in range(3):
                self.box.sh("systemctl restart skmem-exporter.service")
            self.assertNotEqual(self.started(), pid)
        finally:
            done.set()
            scraper.join()
        self.assertGreater(len(answers), 10)
        # 7 is what curl says of a refused connection.
        self.assertNotIn(7, answers)
        # Whoever starts the service without its socket gets both.
        self.box.sh("systemctl stop skmem-exporter.service skmem-exporter.socket; systemctl start skmem-exporter.service")
        self.assertEqual(self.box.unit("ActiveState", unit="skmem-exporter.socket"), "active")
        self.started()

    def test_other_network_namespaces(self):
        self.box.sh("ip netns add other")
        # The box may not, for want of CAP_NET_ADMIN; in its mount namespace the host's root may.
        run("nsenter", f"--target={self.box.pid}", "--mount", "ip", "-n", "other", "link", "set", "lo", "up")
        self.addCleanup(self.box.sh, "ip netns delete other")
        pid = self.culprit("far-writer", netns="other")
        # So that already its first sample could see that namespace.
        self.box.sh("systemctl restart skmem-exporter.service")
        self.started()
        outcome = lambda outcome: self.box.value("skmem_network_namespaces", outcome=outcome)
        row = lambda: self.box.value("skmem_process_tcp_memory_bytes", pid=pid)

        with self.subTest("as installed it looks at its own, says so and how to see the others, and nothing fails"):
            self.assertEqual([outcome("sampled"), outcome("failed"), row()], [1, 0, None])
            self.assertIn("CAP_SYS_ADMIN", self.box.journal())
            self.assertIn("netns.conf", self.box.journal())

        with self.subTest("with the drop-in it sees them"):
            self.box.sh(
                f"install -D -m 644 -t {DROP_INS} {EXAMPLES}/netns.conf; systemctl daemon-reload;"
                "systemctl restart skmem-exporter.service"
            )
            wait_for("the culprit's row", lambda: self.box.is_answering() and row())
            self.assertGreater(row(), 1 << 20)
            self.assertEqual(outcome("failed"), 0)
            self.assertGreater(outcome("sampled"), 1)
            self.assertEqual(self.box.value("skmem_process_info", pid=pid, systemd_unit="far-writer.service"), 1)
            threads = self.threads(self.box.unit("MainPID"))
            self.assertIn(SEES_OWNERS | SEES_NAMESPACES, [int(status["CapEff"], 16) for status in threads])

    def test_a_wrong_setting_is_said_and_not_tried_again(self):
        for setting, complaint in [
            ("SKMEM_SAMPLE_INTERVAL=soon", "SKMEM_SAMPLE_INTERVAL"),
            ("SKMEM_SAMPLE_INTERVALL=1s", "SKMEM_SAMPLE_INTERVALL"),
            ("SKMEM_WEB_CONFIG_FILE=/etc/nothing.yml", "web configuration file /etc/nothing.yml"),
        ]:
            with self.subTest(setting):
                self.box.write("/etc/default/skmem-exporter", setting + "\n")
                self.assertNotEqual(self.box.sh("systemctl restart skmem-exporter.service", check=False).returncode, 0)
                said = self.box.unit("ActiveState", "Result", "ExecMainStatus", "NRestarts")
                self.assertEqual(list(said.values()), ["failed", "exit-code", "2", "0"], said)
                status = self.box.sh("systemctl status --no-pager --full skmem-exporter.service", check=False).stdout
                self.assertIn(complaint, status)
                self.box.sh("systemctl reset-failed")

    def test_exposes_little(self):
        self.box.sh("systemd-analyze verify --man=no /lib/systemd/system/skmem-exporter.service")
        gate = "systemd-analyze security --no-pager --offline=true --threshold="
        self.box.sh(f"{gate}{EXPOSURE_MAX} /lib/systemd/system/skmem-exporter.service")
        self.box.sh(
            "mkdir /tmp/units; cp /lib/systemd/system/skmem-exporter.service /tmp/units; trap 'rm -r /tmp/units' EXIT;"
            f"install -D -t /tmp/units/skmem-exporter.service.d {EXAMPLES}/netns.conf;"
            f"{gate}{EXPOSURE_MAX_WITH_NETNS} /tmp/units/skmem-exporter.service"
        )
        # The gate does close: a service that says nothing of its exposure does not pass.
        self.assertNotEqual(self.box.sh(f"{gate}{EXPOSURE_MAX_WITH_NETNS} /lib/systemd/system/getty@.service", check=False).returncode, 0)


if __name__ == "__main__":
    unittest.main()
