//! What a process's cgroups keep it from: freezers and CPU quotas, of cgroup2 and of cgroup v1.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use hashbrown::HashMap;

use super::super::text;

/// Levels of one hierarchy that are looked at, from the process's own upwards. Kubernetes with systemd inside a container
/// has eight; who may make cgroups may nest thousands.
const LEVELS_MAX: usize = 32;

/// The cgroup hierarchies, with the counters of the reading before.
#[derive(Debug)]
pub struct Restraints {
    root: PathBuf,
    unified: Option<PathBuf>,
    before: HashMap<PathBuf, Quota>,
    quotas: HashMap<PathBuf, Quota>,
}

/// How often and for how long a cgroup's CPU quota was used up, from `cpu.stat` (`kernel/sched/core.c`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Quota {
    /// Periods in which something ran or wanted to.
    periods: u64,
    /// Those in which the quota was used up.
    throttled: u64,
    /// How long run queues were held back, added up over CPUs. Nanoseconds.
    nanoseconds: u64,
}

/// One line of `/proc/PID/cgroup`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Membership<'a> {
    /// cgroup v1 controllers, separated by commas; empty for cgroup2.
    controllers: &'a [u8],
    path: &'a Path,
}

impl Restraints {
    /// The hierarchies below `root` (`/sys/fs/cgroup`), cgroup2 at `unified`.
    pub fn new(root: PathBuf, unified: Option<PathBuf>) -> Self {
        Self { root, unified, before: HashMap::new(), quotas: HashMap::new() }
    }

    /// Begins a reading: what is known now is what was before.
    pub fn begin(&mut self) {
        self.before = std::mem::take(&mut self.quotas);
    }

    /// Whether a freezer is on above the process whose `/proc/PID/cgroup` this is, and in which cgroup. `None` where no
    /// freezer can be read.
    pub fn frozen(&self, text: &[u8]) -> (Option<bool>, String) {
        let mut known = None;
        for membership in memberships(text) {
            let Some(base) = self.base(&membership, b"freezer") else { continue };
            let is_v1 = !membership.controllers.is_empty();
            let state = if is_v1 { "freezer.state" } else { "cgroup.events" };
            let is_frozen = match read(&base, membership.path, state) {
                Some(text) if is_v1 => Some(text.trim_ascii() == b"FROZEN"),
                Some(text) => number(&text, b"frozen").map(|frozen| frozen == 1),
                // The root has no freezer.
                None if membership.path == Path::new("/") => Some(false),
                None => None,
            };
            if is_frozen == Some(true) {
                let switch = if is_v1 { "freezer.self_freezing" } else { "cgroup.freeze" };
                let is_on =
                    |path: &&Path| read(&base, path, switch).is_some_and(|text| text.trim_ascii() == b"1");
                // One above what we can see leaves the process's own.
                let switched = levels(membership.path).find(is_on).unwrap_or(membership.path);
                return (is_frozen, text::lossless(switched.as_os_str().as_bytes()));
            }
            known = known.or(is_frozen);
        }
        (known, String::new())
    }

    /// Share of `seconds`, the time since the reading before, in which a CPU quota held the process back: its own cgroup's or
    /// one's above. 0.0 to 1.0; `None` where that cannot be read, or its cgroup was not read before.
    pub fn throttled_share(&mut self, text: &[u8], seconds: Option<f64>) -> Option<f64> {
        let (base, path) = self.cpu(text)?;
        let mut most: Option<f64> = None;
        for (level, above) in levels(path).enumerate() {
            let directory = directory(&base, above);
            let quota = match self.quotas.get(&directory) {
                Some(quota) => *quota,
                None => match std::fs::read(directory.join("cpu.stat")) {
                    Ok(text) => Quota::parse(&text),
                    Err(_) if level > 0 => continue,
                    Err(_) => return None,
                },
            };
            let share = self
                .before
                .get(&directory)
                .zip(seconds)
                .map(|(before, seconds)| quota.share(before, seconds));
            self.quotas.insert(directory, quota);
            // Its own must be known; a cgroup above cannot be new.
            most =
                if level == 0 { share } else { most.map(|most| share.map_or(most, |share| most.max(share))) };
        }
        most
    }

    /// Where the hierarchy of the cpu controller is, and the process's place in it: cgroup v1's if it is there, else cgroup2's.
    fn cpu<'a>(&self, text: &'a [u8]) -> Option<(PathBuf, &'a Path)> {
        let found: Vec<_> = memberships(text)
            .filter_map(|membership| Some((self.base(&membership, b"cpu")?, membership)))
            .collect();
        let v1 = found.iter().position(|(_, membership)| !membership.controllers.is_empty());
        let (base, membership) = found.into_iter().nth(v1.unwrap_or(0))?;
        Some((base, membership.path))
    }

    /// Where the hierarchy is mounted, if it is cgroup2 or has this controller.
    fn base(&self, membership: &Membership<'_>, controller: &[u8]) -> Option<PathBuf> {
        if membership.controllers.is_empty() {
            return self.unified.clone();
        }
        if !membership.controllers.split(|byte| *byte == b',').any(|name| name == controller) {
            return None;
        }
        // By its name alone it is a link where several controllers share a hierarchy; not everywhere it is made.
        [controller, membership.controllers]
            .map(|name| self.root.join(OsStr::from_bytes(name)))
            .into_iter()
            .find(|base| base.is_dir())
    }
}

impl Quota {
    /// Without a quota there is nothing in it but times of use, or zeros.
    fn parse(text: &[u8]) -> Self {
        let microseconds = number(text, b"throttled_usec").map(|time| time.saturating_mul(1000));
        Self {
            periods: number(text, b"nr_periods").unwrap_or(0),
            throttled: number(text, b"nr_throttled").unwrap_or(0),
            nanoseconds: microseconds.or_else(|| number(text, b"throttled_time")).unwrap_or(0),
        }
    }

    /// Share of the time since `before`. The time held back counts each CPU, the periods count one that was used up at its very
    /// end whole: both are too much, so the smaller one it is.
    fn share(&self, before: &Self, seconds: f64) -> f64 {
        let since = |now: u64, before: u64| now.saturating_sub(before) as f64;
        let time = since(self.nanoseconds, before.nanoseconds) / 1e9 / seconds;
        let periods = since(self.throttled, before.throttled) / since(self.periods, before.periods).max(1.0);
        time.min(periods).clamp(0.0, 1.0)
    }
}

/// The lines that name a place we can see: not one outside our cgroup namespace, which is printed with `..`.
fn memberships(text: &[u8]) -> impl Iterator<Item = Membership<'_>> {
    text.split(|byte| *byte == b'\n').filter_map(|line| {
        let mut parts = line.splitn(3, |byte| *byte == b':');
        let (hierarchy, controllers, path) =
            (parts.next()?, parts.next()?, Path::new(OsStr::from_bytes(parts.next()?)));
        let is_seen = path.is_absolute() && path.components().all(|part| part != Component::ParentDir);
        // A v1 hierarchy without controllers has a name, as `name=systemd`.
        (is_seen && controllers.is_empty() == (hierarchy == b"0")).then_some(Membership { controllers, path })
    })
}

/// A cgroup and those above it.
fn levels(path: &Path) -> impl Iterator<Item = &Path> {
    path.ancestors().take(LEVELS_MAX)
}

fn directory(base: &Path, path: &Path) -> PathBuf {
    base.join(path.strip_prefix("/").unwrap_or(path))
}

fn read(base: &Path, path: &Path, file: &str) -> Option<Vec<u8>> {
    std::fs::read(directory(base, path).join(file)).ok()
}

/// The number after `name` on a line of its own.
fn number(text: &[u8], name: &[u8]) -> Option<u64> {
    let rest =
        text.split(|byte| *byte == b'\n').find_map(|line| line.strip_prefix(name)?.strip_prefix(b" "))?;
    std::str::from_utf8(rest).ok()?.trim_ascii().parse().ok()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use proptest::prelude::*;

    use super::*;

    /// A hybrid host: freezer and cpu of cgroup v1, and cgroup2, each with a service in a slice.
    struct Host {
        directory: tempfile::TempDir,
        restraints: Restraints,
    }

    const V1: &[u8] =
        b"6:freezer:/a.slice/b.service\n1:cpu,cpuacct:/a.slice/b.service\n4:name=systemd:/\n0::/\n";
    const V2: &[u8] = b"0::/a.slice/b.service\n";

    impl Host {
        fn new() -> Self {
            let directory = tempfile::tempdir().unwrap();
            for hierarchy in ["freezer", "cpu,cpuacct", "unified"] {
                fs::create_dir_all(directory.path().join(hierarchy).join("a.slice/b.service")).unwrap();
            }
            let root = directory.path().to_owned();
            let restraints = Restraints::new(root.clone(), Some(root.join("unified")));
            Self { directory, restraints }
        }

        fn write(&self, file: &str, text: &str) {
            fs::write(self.directory.path().join(file), text).unwrap();
        }

        fn share(&mut self, text: &[u8], seconds: Option<f64>) -> Option<f64> {
            self.restraints.begin();
            self.restraints.throttled_share(text, seconds)
        }
    }

    #[test]
    fn a_v1_freezer_above() {
        let host = Host::new();
        assert_eq!(
            host.restraints.frozen(V1),
            (Some(false), String::new()),
            "cgroup2's root is never frozen"
        );
        host.write("freezer/a.slice/b.service/freezer.state", "FREEZING\n");
        assert_eq!(host.restraints.frozen(V1).0, Some(false));
        host.write("freezer/a.slice/b.service/freezer.state", "FROZEN\n");
        host.write("freezer/a.slice/b.service/freezer.self_freezing", "0\n");
        assert_eq!(
            host.restraints.frozen(V1),
            (Some(true), "/a.slice/b.service".to_owned()),
            "above what we see"
        );
        host.write("freezer/a.slice/freezer.self_freezing", "1\n");
        assert_eq!(host.restraints.frozen(V1), (Some(true), "/a.slice".to_owned()));
    }

    #[test]
    fn a_v2_freezer_above() {
        let host = Host::new();
        assert_eq!(host.restraints.frozen(V2), (None, String::new()), "before Linux 5.2, or gone");
        host.write("unified/a.slice/b.service/cgroup.events", "populated 1\nfrozen 0\n");
        assert_eq!(host.restraints.frozen(V2), (Some(false), String::new()));
        host.write("unified/a.slice/b.service/cgroup.events", "populated 1\nfrozen 1\n");
        host.write("unified/a.slice/b.service/cgroup.freeze", "0\n");
        host.write("unified/a.slice/cgroup.freeze", "1\n");
        assert_eq!(host.restraints.frozen(V2), (Some(true), "/a.slice".to_owned()));
        assert_eq!(host.restraints.frozen(b"0::/../other\n"), (None, String::new()), "outside our namespace");
        assert_eq!(host.restraints.frozen(b""), (None, String::new()));
    }

    #[test]
    fn quotas_of_both_versions_and_all_levels() {
        let mut host = Host::new();
        for (text, hierarchy, key, unit) in
            [(V1, "cpu,cpuacct", "throttled_time", 1_000_000), (V2, "unified", "throttled_usec", 1000)]
        {
            let own = format!("{hierarchy}/a.slice/b.service/cpu.stat");
            let slice = format!("{hierarchy}/a.slice/cpu.stat");
            let stat = |periods: u64, throttled: u64, milliseconds: u64| {
                format!("nr_periods {periods}\nnr_throttled {throttled}\n{key} {}\n", milliseconds * unit)
            };
            assert_eq!(host.share(text, Some(10.0)), None, "not read before");
            host.write(&own, &stat(100, 50, 9000));
            host.write(&slice, "usage_usec 5\n");
            assert_eq!(host.share(text, Some(10.0)), None);
            assert_eq!(host.share(text, Some(10.0)), Some(0.0));
            host.write(&own, &stat(200, 130, 10_000));
            assert_eq!(host.share(text, Some(10.0)), Some(0.1), "each period was used up near its end");
            host.write(&own, &stat(300, 180, 50_000));
            assert_eq!(host.share(text, Some(10.0)), Some(0.5), "on many CPUs");
            host.write(&slice, &stat(100, 75, 7500));
            assert_eq!(host.share(text, Some(10.0)), Some(0.75), "the slice's");
            host.write(&slice, &stat(0, 0, 0));
            assert_eq!(host.share(text, Some(10.0)), Some(0.0), "counters that went back");
            assert_eq!(host.share(text, None), None);
        }
    }

    #[test]
    fn processes_of_one_cgroup_read_its_quota_once() {
        let mut host = Host::new();
        host.write("unified/a.slice/b.service/cpu.stat", "nr_periods 0\nnr_throttled 0\nthrottled_usec 0\n");
        host.share(V2, None);
        host.restraints.begin();
        host.write(
            "unified/a.slice/b.service/cpu.stat",
            "nr_periods 10\nnr_throttled 10\nthrottled_usec 500000\n",
        );
        for _ in 0..2 {
            assert_eq!(host.restraints.throttled_share(V2, Some(1.0)), Some(0.5));
            host.write(
                "unified/a.slice/b.service/cpu.stat",
                "nr_periods 20\nnr_throttled 10\nthrottled_usec 500000\n",
            );
        }
    }

    proptest! {
        #[test]
        fn parsers_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), words in "[0-2a-z:/., \n]{0,200}") {
            for text in [bytes.as_slice(), words.as_bytes()] {
                for membership in memberships(text) {
                    prop_assert!(levels(membership.path).all(Path::is_absolute));
                }
                let _ = (Quota::parse(text), number(text, b"frozen"));
            }
        }

        #[test]
        fn a_share_is_a_share(now in prop::array::uniform3(any::<u64>()), before in prop::array::uniform3(any::<u64>())) {
            let quota = |[periods, throttled, nanoseconds]: [u64; 3]| Quota { periods, throttled, nanoseconds };
            let share = quota(now).share(&quota(before), 0.2);
            prop_assert!((0.0..=1.0).contains(&share));
        }
    }
}
