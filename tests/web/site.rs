//! A directory with what docs/web.md says, and a daemon that uses it.

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::document::example;
use crate::kit::daemon::{BINARY, Daemon};
use crate::kit::scrape::Scrape;

/// The examples of web configuration files, in the document's order.
pub const CONFIGS: [&str; 7] =
    ["TLS", "TLS, chosen", "client certificates", "passwords", "headers", "rate limit", "all"];

/// Certificates, a password, and room for a web configuration file.
pub struct Site {
    directory: tempfile::TempDir,
    pub password: String,
}

/// What somebody else's client said of the server.
#[derive(Debug)]
pub struct Said {
    pub succeeded: bool,
    pub out: String,
    pub err: String,
}

impl Site {
    /// With certificates made as the document says.
    pub fn new() -> Self {
        let site = Self { directory: tempfile::tempdir().unwrap(), password: String::new() };
        site.script(&example("certificates.sh"));
        site.script(&example("password.sh"));
        let password = std::fs::read_to_string(site.path("password")).unwrap();
        Self { password: password.trim().to_owned(), ..site }
    }

    /// The same with a web.yml of the document's, and a daemon that uses it.
    pub fn serving(title: &str) -> (Self, Daemon) {
        let site = Self::new();
        site.configure(title);
        let daemon = site.start();
        (site, daemon)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The same for a command line without quoting.
    pub fn file(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    pub fn write(&self, name: &str, content: &str) {
        // In one step, as a change must be.
        std::fs::write(self.path("new"), content).unwrap();
        std::fs::rename(self.path("new"), self.path(name)).unwrap();
    }

    /// Runs a script in the directory; what it prints.
    #[track_caller]
    pub fn script(&self, text: &str) -> String {
        let said = self.tell(Command::new("sh").args(["-ec", text]), "");
        assert!(said.succeeded, "{text}\n{}", said.err);
        said.out
    }

    /// Runs a program in the directory, to its end.
    pub fn tell(&self, command: &mut Command, input: &str) -> Said {
        let mut child = command
            .current_dir(self.directory.path())
            .env("LC_ALL", "C")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| {
                panic!("{command:?}: {error}; scripts/test-tools installs what is missing")
            });
        // It may end without reading it.
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
        let output = child.wait_with_output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Said { succeeded: output.status.success(), out: text(&output.stdout), err: text(&output.stderr) }
    }

    /// Writes web.yml as the document has it, with the hash of this password in it.
    pub fn configure(&self, title: &str) {
        let text = example(&format!("web.yml: {title}"));
        let documents = "$2y$10$2vLTeMyCoxkNRWYDVvRDOeFNNn19a5U9xsdHbRXSGKmWcoZm93Dly";
        let text = if text.contains(documents) { text.replace(documents, &self.hash()) } else { text };
        self.write("web.yml", &text);
    }

    fn hash(&self) -> String {
        self.script(&example("hash.sh: htpasswd, of Debian's apache2-utils"))
    }

    /// A daemon with web.yml.
    pub fn start(&self) -> Daemon {
        Daemon::start_command(
            Command::new(BINARY)
                .args(["--web.listen-address=127.0.0.1:0", "--sample.interval=1s"])
                .arg(format!("--web.config.file={}", self.file("web.yml"))),
        )
    }

    /// curl with these arguments; `URL` in front of a path is the daemon's.
    pub fn curl(&self, daemon: &Daemon, arguments: &str) -> Said {
        let base =
            ["https://localhost", "http://localhost"].map(|url| format!("{url}:{}", daemon.address.port()));
        let arguments = arguments.split_whitespace().map(|word| {
            word.replace("TLS/", &format!("{}/", base[0])).replace("PLAIN/", &format!("{}/", base[1]))
        });
        let common = [
            "--silent",
            "--show-error",
            "--include",
            "--max-time",
            "30",
            "--cacert",
            "ca.crt",
            "--ipv4",
            "--noproxy",
            "*",
        ];
        let write = "\n%{stderr}%{http_code} HTTP/%{http_version}";
        self.tell(Command::new("curl").args(common).args(["--write-out", write]).args(arguments), "")
    }

    /// A scrape of this daemon by curl, which must succeed.
    #[track_caller]
    pub fn scrape(&self, daemon: &Daemon, arguments: &str) -> Scrape {
        let said = self.curl(daemon, arguments);
        assert!(said.err.contains("200 HTTP/"), "{said:?}");
        let (_, body) = said
            .out
            .replace("\r\n", "\n")
            .split_once("\n\n")
            .map(|(h, b)| (h.to_owned(), b.to_owned()))
            .unwrap();
        Scrape::parse(format!("{}\n", body.trim_end()))
    }
}
