//! Settings of the host that are changed for a while.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};

/// A setting below `net.ipv4`; restored when dropped, and also when this process dies of whatever: a child waits for the
/// end of its pipe.
#[derive(Debug)]
pub struct Sysctl {
    path: PathBuf,
    before: String,
    watch: Child,
    pipe: Option<ChildStdin>,
}

impl Sysctl {
    /// Remembers how it is.
    pub fn remember(name: &str) -> Self {
        let path = PathBuf::from("/proc/sys/net/ipv4").join(name);
        let before = fs::read_to_string(&path).unwrap().trim().to_owned();
        // A group of its own: Ctrl-C at the tests does not reach it.
        let mut watch = Command::new("sh")
            .args(["-c", "cat; printf %s \"$1\" > \"$2\"", "sh", &before])
            .arg(&path)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .process_group(0)
            .spawn()
            .unwrap();
        let pipe = watch.stdin.take();
        Self { path, before, watch, pipe }
    }

    pub fn set(&self, value: &str) {
        fs::write(&self.path, value).unwrap();
    }
}

impl Drop for Sysctl {
    fn drop(&mut self) {
        self.pipe.take();
        let _ = self.watch.wait();
        let now = fs::read_to_string(&self.path).unwrap_or_default();
        assert!(std::thread::panicking() || now.trim() == self.before, "{}: {now}", self.path.display());
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;
    use crate::kit::host::{self, eventually, same};

    /// Touches nothing that any test looks at.
    const HARMLESS: &str = "tcp_probe_interval";

    fn now() -> String {
        fs::read_to_string(format!("/proc/sys/net/ipv4/{HARMLESS}")).unwrap().trim().to_owned()
    }

    #[test]
    #[ignore = "not a test: the part that is killed in the next one"]
    fn change_and_wait_to_be_killed() {
        let sysctl = Sysctl::remember(HARMLESS);
        sysctl.set("601");
        std::thread::sleep(host::PATIENCE);
    }

    #[test]
    fn is_restored_when_the_test_is_killed() {
        let _host = host::shared();
        let before = now();
        assert_ne!(before, "601");
        let mut test = Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "sysctl::tests::change_and_wait_to_be_killed"])
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        eventually("a changed setting", || same("it", &now(), &"601".to_owned()));
        test.kill().unwrap();
        test.wait().unwrap();
        eventually("the setting as it was", || same("it", &now(), &before));
    }
}
