//! The searches on a made-up procfs: symlinks such as `fd/3 -> socket:[700]`.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use super::*;

struct FakeProc {
    directory: tempfile::TempDir,
    owners: Owners,
}

impl FakeProc {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let owners = Owners::new(ProcRoot::new(directory.path()));
        Self { directory, owners }
    }

    fn path(&self, relative: &str) -> PathBuf {
        self.directory.path().join(relative)
    }

    /// A process that started at `start_time` and has these sockets at these fds.
    fn process(&self, pid: u32, start_time: u64, sockets: &[(u32, u32)]) {
        fs::create_dir_all(self.path(&format!("{pid}/fd"))).unwrap();
        // pid, comm, state, 15 fields up to priority and nice, num_threads, itrealvalue, starttime, the rest.
        let stat = format!("{pid} (x) S {} 1 0 {start_time} {}", "0 ".repeat(16).trim_end(), "0 ".repeat(30));
        fs::write(self.path(&format!("{pid}/stat")), stat).unwrap();
        for (fd, inode) in sockets {
            self.open(pid, *fd, *inode);
        }
    }

    fn open(&self, pid: u32, fd: u32, inode: u32) {
        symlink(format!("socket:[{inode}]"), self.path(&format!("{pid}/fd/{fd}"))).unwrap();
    }

    fn close(&self, pid: u32, fd: u32) {
        fs::remove_file(self.path(&format!("{pid}/fd/{fd}"))).unwrap();
    }

    /// Puts something in a file's place that cannot be read as it could; gives it back when called again.
    fn swap(&self, relative: &str) {
        let (here, aside) = (self.path(relative), self.path(&format!("{relative}.aside")));
        let (is_aside, was_directory) = (aside.exists(), here.is_dir());
        if is_aside {
            if was_directory { fs::remove_dir(&here) } else { fs::remove_file(&here) }.unwrap();
            fs::rename(&aside, &here).unwrap();
        } else {
            fs::rename(&here, &aside).unwrap();
            if was_directory { fs::write(&here, "") } else { fs::create_dir(&here) }.unwrap();
        }
    }

    fn exit(&self, pid: u32) {
        fs::remove_dir_all(self.path(&pid.to_string())).unwrap();
    }

    /// Begins a round that has time enough; its deadline.
    fn begin(&mut self) -> Instant {
        let deadline = Instant::now() + Duration::from_mins(1);
        let pids = ProcRoot::new(self.directory.path()).pids().unwrap();
        self.owners.begin(&pids, deadline).unwrap();
        deadline
    }

    /// One round over a complete dump that shows `inodes`, each holding `memory`; the pid found for each.
    fn round_of(&mut self, inodes: &[u32], memory: i64) -> Vec<Option<u32>> {
        let found = self.incomplete_round(inodes, memory);
        self.owners.end();
        found
    }

    /// The same over a dump that some of the host's sockets are missing from.
    fn incomplete_round(&mut self, inodes: &[u32], memory: i64) -> Vec<Option<u32>> {
        let deadline = self.begin();
        let first: Vec<Lookup> = inodes
            .iter()
            .map(|inode| {
                self.owners.sight(*inode, u64::from(*inode));
                self.owners.lookup(*inode, memory)
            })
            .collect();
        self.owners.resolve(Duration::from_secs(10), deadline).unwrap();
        inodes
            .iter()
            .zip(first)
            .map(|(inode, lookup)| match lookup {
                Lookup::Known(id) => Some(id),
                Lookup::Pending => self.owners.holder(*inode),
                Lookup::Nobody => None,
            })
            .map(|id| id.and_then(|id| self.owners.pid(id)))
            .collect()
    }

    fn round(&mut self, inodes: &[u32]) -> Vec<Option<u32>> {
        self.round_of(inodes, 0)
    }
}

#[test]
fn a_shared_socket_belongs_to_its_oldest_holder() {
    let mut host = FakeProc::new();
    host.process(10, 300, &[(3, 700), (4, 701)]);
    host.process(20, 200, &[(3, 700)]);
    host.process(30, 250, &[(5, 700), (6, 702)]);
    assert_eq!(host.round(&[700, 701, 702, 999]), [Some(20), Some(10), Some(30), None]);
    assert_eq!(host.round(&[700, 701, 702]), [Some(20), Some(10), Some(30)], "and stays so");
}

#[test]
fn a_new_socket_is_found_wherever_it_is() {
    let mut host = FakeProc::new();
    host.process(10, 1, &[(3, 700), (4, 701), (9, 702)]);
    assert_eq!(host.round(&[700, 701, 702]), [Some(10); 3]);
    host.close(10, 4);
    host.open(10, 4, 710); // in the place of a closed one
    host.open(10, 10, 711); // past the end
    host.open(10, 6, 712); // in a gap that no socket left
    host.process(11, 5, &[(3, 713)]); // in a new process
    assert_eq!(
        host.round(&[700, 702, 710, 711, 712, 713]),
        [Some(10), Some(10), Some(10), Some(10), Some(10), Some(11)]
    );
}

#[test]
fn whoever_is_left_takes_over_when_the_oldest_holder_exits() {
    let mut host = FakeProc::new();
    host.process(10, 1, &[(3, 700)]);
    host.process(20, 2, &[(3, 700)]);
    assert_eq!(host.round(&[700]), [Some(10)]);
    host.exit(10);
    assert_eq!(host.round(&[700]), [Some(20)]);
}

#[test]
fn a_reused_pid_is_another_process() {
    let mut host = FakeProc::new();
    host.process(10, 1, &[(3, 700)]);
    host.round(&[700]);
    let before = host.owners.holder(700).unwrap();
    host.exit(10);
    host.process(10, 99, &[(3, 701)]);
    assert_eq!(host.round(&[700, 701]), [None, Some(10)]);
    assert_ne!(host.owners.holder(701).unwrap(), before);
}

#[test]
fn a_table_that_cannot_be_read_for_once_is_read_later() {
    let mut host = FakeProc::new();
    host.process(10, 1, &[(3, 700)]);
    host.swap("10/fd");
    assert_eq!(host.round(&[700]), [None]);
    host.swap("10/fd");
    assert_eq!(host.round(&[700]), [Some(10)]);
    for unreadable in ["10/fd", "10/stat"] {
        host.swap(unreadable);
        assert_eq!(host.round_of(&[700], BIG), [Some(10)], "{unreadable}: nothing speaks against it");
        host.swap(unreadable);
    }
}

#[test]
fn a_process_whose_table_vanished_is_met_anew() {
    let mut host = FakeProc::new();
    host.process(10, 1, &[(3, 700)]);
    fs::rename(host.path("10/fd"), host.path("10/away")).unwrap();
    assert_eq!(host.round_of(&[700], 4096), [None]);
    assert!(host.owners.processes.is_empty() && host.owners.pids.is_empty());
    fs::rename(host.path("10/away"), host.path("10/fd")).unwrap();
    assert_eq!(host.round_of(&[700], 4096), [Some(10)]);
}

#[test]
fn processes_that_hide_their_stat_count_as_denied_until_they_show_it() {
    // Nobody may read this one, not even root.
    const FORBIDDEN: &str = "/proc/sys/net/ipv4/route/flush";
    let mut host = FakeProc::new();
    for pid in [1, 2, 10] {
        host.process(pid, 1, &[(3, 700 + pid)]);
    }
    for pid in [1, 2] {
        fs::rename(host.path(&format!("{pid}/stat")), host.path(&format!("{pid}/shown"))).unwrap();
        symlink(FORBIDDEN, host.path(&format!("{pid}/stat"))).unwrap();
    }
    assert_eq!(host.round_of(&[701, 710], 4096), [None, Some(10)]);
    assert_eq!(host.owners.denied(), 1, "2 may be a kernel thread");
    assert_eq!(host.owners.processes(), 2);
    fs::rename(host.path("1/shown"), host.path("1/stat")).unwrap();
    let found_after = (1..=2 * RETRY_ROUNDS_MAX).find(|_| host.round_of(&[701, 710], 4096)[0] == Some(1));
    assert!(found_after.is_some_and(|rounds| rounds > 1), "not asked each round: {found_after:?}");
    assert_eq!((host.owners.denied(), host.owners.processes()), (0, 2));
    host.exit(2);
    host.round(&[]);
    assert!(host.owners.hidden.is_empty());
}

#[test]
fn a_connection_handed_to_a_child_follows_it_in_the_next_rounds() {
    let mut host = FakeProc::new();
    host.process(10, 1, &[(3, 700)]);
    host.round(&[700]);
    host.open(10, 4, 701);
    assert_eq!(host.round(&[700, 701]), [Some(10), Some(10)]);
    host.process(11, 2, &[(4, 701)]);
    host.close(10, 4);
    assert_eq!(host.round(&[700, 701]), [Some(10), Some(11)], "a young holder is asked again");
}

#[test]
fn a_big_socket_that_changes_hands_is_noticed_at_once() {
    let mut host = FakeProc::new();
    host.process(10, 1, &[(3, 700)]);
    host.process(11, 2, &[]);
    for _ in 0..5 {
        assert_eq!(host.round_of(&[700], BIG), [Some(10)]);
    }
    host.close(10, 3);
    host.open(11, 8, 700);
    assert_eq!(host.round_of(&[700], BIG), [Some(11)]);
}

#[test]
fn the_rotation_notices_a_silent_hand_over() {
    let mut host = FakeProc::new();
    host.process(10, 1, &[(3, 700)]);
    host.process(11, 2, &[(4, 701)]);
    for _ in 0..5 {
        host.round(&[700, 701]);
    }
    host.close(10, 3);
    host.open(11, 8, 700);
    host.round(&[700, 701]);
    assert_eq!(host.round(&[700, 701]), [Some(11), Some(11)], "small hosts rotate in one round");
}

#[test]
fn a_socket_in_no_table_is_not_looked_for_every_round_and_found_when_it_lands() {
    let mut host = FakeProc::new();
    host.process(10, 1, &[(3, 700)]);
    host.process(11, 2, &[]);
    for _ in 0..6 {
        assert_eq!(host.round_of(&[700, 705], 4096), [Some(10), None]);
    }
    let retry_in = host.owners.unfound[&705].retry_in;
    assert!(retry_in > Some(host.owners.round + 1), "the search backs off");
    host.open(11, 3, 705);
    let found_after = (1..=2 * RETRY_ROUNDS_MAX).find(|_| host.round_of(&[700, 705], 4096)[1] == Some(11));
    assert!(found_after.is_some_and(|rounds| rounds <= RETRY_ROUNDS_MAX), "{found_after:?}");
}

#[test]
fn only_memory_that_stays_without_an_owner_lifts_the_budget() {
    let mut host = FakeProc::new();
    host.process(10, 1, &[(3, 700)]);
    host.round(&[700]);
    let unowned: Vec<u32> = (800..1300).collect();
    let is_lifted = |host: &mut FakeProc| {
        host.begin();
        for inode in &unowned {
            host.owners.lookup(*inode, 4096);
        }
        host.owners.may_search_freely()
    };
    assert!(!is_lifted(&mut host), "most are likely to have closed since the dump");
    host.round_of(&unowned, 4096);
    assert!(is_lifted(&mut host), "they are still there");
}

#[test]
fn a_search_out_of_time_opens_no_table() {
    let mut host = FakeProc::new();
    host.process(10, 1, &[(3, 700)]);
    host.round(&[700]);
    host.begin();
    host.owners.lookup(701, 4096);
    host.exit(10);
    host.owners.search(Duration::ZERO, Instant::now() + Duration::from_mins(1)).unwrap();
    assert_eq!(host.owners.tables.len(), 1, "opening it would have told that it is gone");
}

#[test]
fn an_idle_socket_in_no_table_is_left_to_the_rotation_until_it_holds_memory() {
    let mut host = FakeProc::new();
    host.process(10, 1, &[(3, 700)]);
    for _ in 0..4 {
        assert_eq!(host.round(&[700, 705]), [Some(10), None]);
    }
    assert_eq!(host.owners.unfound[&705].retry_in, None);
    host.open(10, 77, 705);
    assert_eq!(host.round_of(&[700, 705], 4096)[1], Some(10));
}

#[test]
fn what_the_dump_no_longer_shows_is_forgotten() {
    let mut host = FakeProc::new();
    host.process(10, 1, &[(3, 700), (4, 701), (5, 702)]);
    host.round(&[700, 701]);
    assert_eq!(host.owners.holders.len(), 2, "702 is no TCP socket");
    host.round(&[700]);
    assert_eq!(host.owners.holders.len(), 1);
    host.exit(10);
    host.round(&[]);
    assert!(host.owners.tables.is_empty() && host.owners.processes.is_empty());
}

#[test]
fn while_dumps_fail_the_map_keeps_what_may_be_open_and_does_not_grow_for_ever() {
    let mut host = FakeProc::new();
    host.process(10, 1, &[(3, 700), (4, 701)]);
    host.round(&[700, 701]);
    let mut most = (0, 0);
    for inode in 1000..1000 + 3 * UNSEEN_ROUNDS_MAX {
        host.open(10, 5, inode);
        host.incomplete_round(&[700, inode, 10_000 + inode], 4096);
        host.close(10, 5);
        most = (most.0.max(host.owners.holders.len()), most.1.max(host.owners.unfound.len()));
        if inode < 1000 + UNSEEN_ROUNDS_MAX / 2 {
            assert!(
                host.owners.holders.contains_key(&701),
                "a part of a dump says of nothing that it has closed"
            );
        }
    }
    let bound = UNSEEN_ROUNDS_MAX as usize + 2;
    assert!(most.0 <= bound && most.1 <= bound, "{most:?}");
    assert!(host.owners.holders.contains_key(&700));
    for _ in 0..2 * UNSEEN_ROUNDS_MAX {
        host.incomplete_round(&[], 0);
    }
    assert!(host.owners.holders.contains_key(&700), "no dump at all, nothing to forget");
}

#[test]
fn only_processes_with_tcp_sockets_are_asked_again_whether_they_are_the_same() {
    let mut host = FakeProc::new();
    host.process(10, 1, &[(3, 700), (4, 701)]);
    host.process(11, 2, &[(3, 800)]);
    host.process(12, 3, &[(3, 702)]);
    let holding = |host: &FakeProc| {
        let tables = host.owners.tables.values().filter(|table| table.holds);
        let mut pids: Vec<u32> = tables.map(|table| table.name.pid).collect();
        pids.sort_unstable();
        pids
    };
    host.round(&[700, 701, 702]);
    assert_eq!(holding(&host), [10, 12], "800 is no TCP socket");
    host.close(12, 3);
    host.round(&[700, 701]);
    assert_eq!(holding(&host), [10]);
    host.open(11, 4, 703);
    host.round(&[700, 701, 703]);
    assert_eq!(holding(&host), [10, 11]);
}

#[test]
fn a_socket_shown_twice_is_told_from_sockets_that_share_an_inode() {
    let mut host = FakeProc::new();
    host.process(10, 1, &[(3, 700)]);
    host.round(&[700]);
    let pids = [10];
    host.owners.begin(&pids, Instant::now() + Duration::from_mins(1)).unwrap();
    assert_eq!(host.owners.sight(700, 5), Sighting::First);
    assert_eq!(host.owners.sight(700, 5), Sighting::Duplicate);
    assert_eq!(host.owners.sight(700, 6), Sighting::Unknown);
    assert_eq!(host.owners.sight(701, 7), Sighting::Unknown);
}

#[test]
fn a_deadline_stops_the_walk() {
    let host = FakeProc::new();
    let sockets: Vec<(u32, u32)> = (0..2000).map(|fd| (fd, 10_000 + fd)).collect();
    host.process(10, 1, &sockets);
    let mut owners = Owners::new(ProcRoot::new(host.directory.path()));
    let error = owners.begin(&[10], Instant::now()).unwrap_err();
    assert_eq!(error.reason(), crate::sample::Reason::Deadline);
}
