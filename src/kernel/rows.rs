//! From sums to rows: which processes and cgroups are shown, with their names.

use std::time::Duration;

use hashbrown::HashMap;

use super::Scope;
use super::activity::ActivityReader;
use super::cgroup_place::CgroupPlace;
use super::cgroups::Cgroups;
use super::outcome::Outcomes;
use super::owners::Owners;
use super::proc_root::ProcRoot;
use super::process;
use crate::account::{Account, Holder, ProcessId};
use crate::finding::{MEMORY_FLOOR, has_finding};
use crate::predicament::Activity;
use crate::sample::{CgroupRow, OTHER, ProcessName, ProcessRow, SocketSums, Source, Worst};
use crate::select::{Candidate, Selection};
use crate::worst::WorstOf;

/// Processes read for what they do in one sample, largest first: each costs 0.1 ms, one with hundreds of threads some 10.
const ACTIVITIES_MAX: usize = 10;

/// Rows of the samples before, and where names are read.
#[derive(Debug)]
pub struct Rows {
    root: ProcRoot,
    cgroups: Cgroups,
    place: CgroupPlace,
    activities: ActivityReader,
    reads_ahead: bool,
    page_size: u64,
    process_selection: Selection<ProcessId>,
    cgroup_selection: Selection<u64>,
}

impl Rows {
    /// Rows as `scope` wants them.
    pub fn new(root: ProcRoot, page_size: u64, scope: &Scope<'_>) -> Self {
        let (min_memory, limit) = (scope.row_min_memory, scope.rows_max);
        let cgroups = Cgroups::new(scope.cgroupfs);
        let place = CgroupPlace::find(&root, cgroups.mount());
        Self {
            activities: ActivityReader::new(root.clone(), scope.cgroupfs, cgroups.mount(), place.clone()),
            cgroups,
            place,
            reads_ahead: scope.reads_ahead,
            root,
            page_size,
            process_selection: Selection::new(min_memory, limit),
            cgroup_selection: Selection::new(min_memory, limit),
        }
    }

    /// Rows of processes, largest first, and how many found no place. Whatever has no row is in the last one.
    /// `now` is any clock that only grows, `timestamp` the sample's.
    pub fn processes(
        &mut self,
        account: &Account,
        worst: &mut WorstOf,
        owners: &Owners,
        now: Duration,
        timestamp: f64,
    ) -> (Vec<ProcessRow>, u64) {
        // A row without any socket left stays for a while too, as long as its process lives.
        let idle: Vec<ProcessId> = self
            .process_selection
            .shown()
            .filter(|id| !account.processes.contains_key(id) && owners.pid(*id).is_some())
            .collect();
        let candidates = account.processes.iter().map(|(id, sums)| Candidate {
            key: *id,
            memory: sums.memory,
            must_show: has_finding(sums, worst.of(Holder::Process(*id))),
        });
        let idle = idle.into_iter().map(|key| Candidate { key, memory: 0, must_show: false });
        let chosen = self.process_selection.choose(candidates.chain(idle), now);
        let mut activities = self.activities(&chosen.keys, account, worst, owners, now);
        let mut left = account.processes.clone();
        let mut rows: Vec<ProcessRow> = Vec::with_capacity(chosen.keys.len() + 1);
        for id in chosen.keys {
            // One that has exited since the dump is counted with the others.
            let Some(pid) = owners.pid(id) else { continue };
            let Some(comm) = process::comm(&self.root, pid) else { continue };
            let resident_memory = process::resident_memory(&self.root, pid, self.page_size);
            let info = Some(process::info(&self.root, &self.place, pid));
            // Asked last: what was read before is of this process only if it is still there.
            if !owners.is_alive(id) {
                continue;
            }
            let sums = left.remove(&id).unwrap_or_default();
            let worst = worst.take(Holder::Process(id));
            let activity = activities.remove(&id).filter(|_| has_finding(&sums, &worst));
            rows.push(ProcessRow {
                name: ProcessName::One { pid, comm },
                stall_start: stall_start(&sums, timestamp),
                sums,
                resident_memory,
                info,
                worst,
                activity,
            });
        }
        let mut others = SocketSums::default();
        left.values().for_each(|sums| others.merge(sums));
        rows.push(ProcessRow {
            name: ProcessName::Other,
            stall_start: stall_start(&others, timestamp),
            sums: others,
            resident_memory: None,
            info: None,
            worst: Worst::default(),
            activity: None,
        });
        (rows, chosen.truncated)
    }

    /// What those do whose sockets stand still, as far as they can be read.
    fn activities(
        &mut self,
        shown: &[ProcessId],
        account: &Account,
        worst: &WorstOf,
        owners: &Owners,
        now: Duration,
    ) -> HashMap<ProcessId, Activity> {
        let sums = |id: &ProcessId| account.processes.get(id);
        let (culprits, others): (Vec<ProcessId>, Vec<ProcessId>) = shown
            .iter()
            .partition(|id| sums(id).is_some_and(|sums| has_finding(sums, worst.of(Holder::Process(**id)))));
        let ahead = others
            .into_iter()
            .filter(|id| self.reads_ahead && sums(id).is_some_and(|sums| sums.memory >= MEMORY_FLOOR));
        let pids = culprits.into_iter().chain(ahead).filter_map(|id| Some((id, owners.pid(id)?)));
        let pids: Vec<(ProcessId, u32)> = pids.take(ACTIVITIES_MAX).collect();
        self.activities.read(&pids, now)
    }

    /// Rows of cgroups, largest first, the rest last; none where there is no cgroup2.
    pub fn cgroups(&mut self, account: &Account, now: Duration, outcomes: &mut Outcomes) -> Vec<CgroupRow> {
        if self.cgroups.mount().is_none() {
            return Vec::new();
        }
        let candidates = account.cgroups.iter().map(|(id, sums)| Candidate {
            key: *id,
            memory: sums.memory,
            must_show: false,
        });
        let chosen = self.cgroup_selection.choose(candidates, now);
        outcomes.note(Source::Cgroups, self.cgroups.resolve(&chosen.keys));
        let mut left = account.cgroups.clone();
        let mut rows: Vec<CgroupRow> = chosen
            .keys
            .iter()
            .map(|id| {
                let sums = left.remove(id).unwrap_or_default();
                let sock_memory = self.cgroups.sock_memory(*id);
                CgroupRow {
                    path: self.cgroups.path(*id),
                    memory: sums.memory,
                    receive_queue: sums.receive_queue,
                    sock_memory: outcomes.note(Source::Cgroups, sock_memory).flatten(),
                }
            })
            .collect();
        rows.push(CgroupRow {
            path: OTHER.to_owned(),
            memory: left.values().map(|sums| sums.memory).sum(),
            receive_queue: left.values().map(|sums| sums.receive_queue).sum(),
            sock_memory: None,
        });
        rows
    }
}

/// When the longest stall began, without the noise below a millisecond that two clocks have between them: it stands still.
fn stall_start(sums: &SocketSums, timestamp: f64) -> Option<f64> {
    let stalled = sums.stalled();
    (!stalled.is_zero()).then(|| ((timestamp - stalled.as_secs_f64()) * 1e3).round() / 1e3)
}
