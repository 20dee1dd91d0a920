//! Where procfs is, and the reading of small files below it.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use super::error::Error;

/// The root of a procfs: `/proc`, a host's procfs inside a container, or a fixture.
#[derive(Debug, Clone)]
pub struct ProcRoot(PathBuf);

impl ProcRoot {
    /// The procfs at `path`.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// `relative` below the root.
    pub fn join(&self, relative: impl AsRef<Path>) -> PathBuf {
        self.0.join(relative)
    }

    /// The whole file as bytes: comm and paths may hold any.
    pub fn bytes(&self, relative: impl AsRef<Path>) -> Result<Vec<u8>, Error> {
        let path = self.join(relative);
        // procfs reports a size of 0, so std's own `read` would start from nothing and grow; one page holds most.
        let mut bytes = Vec::with_capacity(4096);
        match File::open(&path).and_then(|mut file| file.read_to_end(&mut bytes)) {
            Ok(_) => Ok(bytes),
            Err(source) => Err(Error::File { path, source }),
        }
    }

    /// The whole file as text, run through `parse`; a parser's complaint gets the path added.
    pub fn parse<T>(
        &self,
        relative: impl AsRef<Path>,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Result<T, Error> {
        let bytes = self.bytes(&relative)?;
        std::str::from_utf8(&bytes)
            .map_err(|error| error.to_string())
            .and_then(parse)
            .map_err(|what| Error::Malformed { path: self.join(relative), what })
    }

    /// Whether its pids are the ones that system calls of this process take: not so for the procfs of another pid
    /// namespace, nor for a fixture.
    pub fn has_own_pids(&self) -> bool {
        std::fs::read_link(self.join("self"))
            .is_ok_and(|own| own.to_str() == Some(&std::process::id().to_string()))
    }

    /// The pids listed right now, ascending.
    pub fn pids(&self) -> Result<Vec<u32>, Error> {
        let file = |source| Error::File { path: self.0.clone(), source };
        let mut pids = Vec::new();
        for entry in std::fs::read_dir(&self.0).map_err(file)? {
            let entry = entry.map_err(file)?;
            pids.extend(entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()));
        }
        pids.sort_unstable();
        Ok(pids)
    }
}
