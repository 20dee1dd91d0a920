//! Tells the crate which commit and which compiler it is built from, for the build info metric.
//!
//! Reproducible: no clock, no host name, no path. A packager without a git checkout sets `SKMEM_REVISION`; where
//! neither says anything, the variable stays unset and the metric says so.

use std::path::{Path, PathBuf};
use std::process::Command;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-env-changed=SKMEM_REVISION");
    println!("cargo:rerun-if-env-changed=RUSTC");

    let given = std::env::var("SKMEM_REVISION").ok().filter(|revision| !revision.is_empty());
    if let Some(revision) = given.or_else(git_revision) {
        println!("cargo:rustc-env=SKMEM_REVISION={revision}");
    }

    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    if let Some(version) = line_of(Command::new(rustc).arg("--version")) {
        let version = version.strip_prefix("rustc ").unwrap_or(&version);
        // Not SKMEM_...: cargo also sets it for what it runs, and the program refuses variables of its prefix that it
        // does not know.
        println!("cargo:rustc-env=BUILT_WITH_RUSTC={version}");
    }
}

/// The commit of this checkout. `None` without git, and in an unpacked archive that merely lies inside some other
/// checkout, whose commit says nothing about these sources.
fn git_revision() -> Option<String> {
    let here = PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR")?);
    let top = PathBuf::from(git(&here, &["rev-parse", "--show-toplevel"])?);
    if top.canonicalize().ok()? != here.canonicalize().ok()? {
        return None;
    }
    // HEAD changes with a checkout, its log with every commit. A path that is not there would rebuild every time.
    for name in ["HEAD", "logs/HEAD"] {
        let path = here.join(git(&here, &["rev-parse", "--git-path", name])?);
        if path.exists() {
            println!("cargo:rerun-if-changed={}", path.display());
        }
    }
    git(&here, &["rev-parse", "HEAD"])
}

fn git(directory: &Path, arguments: &[&str]) -> Option<String> {
    line_of(Command::new("git").arg("-C").arg(directory).args(arguments))
}

/// The one line a successful command prints.
fn line_of(command: &mut Command) -> Option<String> {
    let output = command.output().ok().filter(|output| output.status.success())?;
    let text = String::from_utf8(output.stdout).ok()?;
    let line = text.trim();
    (!line.is_empty() && !line.contains('\n')).then(|| line.to_owned())
}
