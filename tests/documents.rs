//! The documents and the layout keep to what they say.

#[path = "support/metrics/golden.rs"]
mod golden;
#[path = "support/privileges.rs"]
mod privileges;
#[path = "support/workloads.rs"]
mod workloads;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use skmem_exporter::config::settings::SETTINGS;
use skmem_exporter::finding::{LEAKED_FLOOR, MEMORY_FLOOR, WAITING_FLOOR};
use skmem_exporter::sample::Cause;
use skmem_exporter::sample::FindingKind;
use workloads::{CULPRITS, INNOCENTS, Workload};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// Files below `directory` with this ending, built ones and hidden ones aside.
fn files(directory: &Path, ending: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).expect("a directory") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().and_then(|name| name.to_str()).expect("a name");
        if name.starts_with('.') || path == Path::new(ROOT).join("target") || name == "fixtures" {
            continue;
        }
        if path.is_dir() {
            found.extend(files(&path, ending));
        } else if name.ends_with(ending) {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// Targets of Markdown links: `[text](target)`.
fn links(text: &str) -> impl Iterator<Item = &str> {
    text.split("](").skip(1).filter_map(|rest| rest.split(')').next())
}

#[test]
fn every_link_leads_somewhere() {
    let mut links_seen = 0;
    for document in files(Path::new(ROOT), ".md") {
        let text = fs::read_to_string(&document).unwrap();
        for link in links(&text) {
            links_seen += 1;
            if link.starts_with("https://") {
                continue;
            }
            let (path, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target =
                if path.is_empty() { document.clone() } else { document.parent().unwrap().join(path) };
            assert!(target.exists(), "{}: {link} leads nowhere", document.display());
            if !anchor.is_empty() {
                let target_text = fs::read_to_string(&target).unwrap();
                let headings = target_text.lines().filter(|line| line.starts_with('#'));
                let mut anchors =
                    headings.map(|line| line.trim_start_matches('#').trim().to_lowercase().replace(' ', "-"));
                assert!(anchors.any(|found| found == anchor), "{}: no heading {anchor}", document.display());
            }
        }
    }
    assert!(links_seen > 5, "the search works");
}

/// The table of settings in the README is the table of settings.
#[test]
fn the_readme_lists_every_setting() {
    let readme = fs::read_to_string(Path::new(ROOT).join("README.md")).unwrap();
    let mut table = String::new();
    for setting in SETTINGS {
        let default = setting.default.map_or("none".to_owned(), |default| format!("`{default}`"));
        writeln!(table, "| `--{}` | {default} | {} |", setting.key, setting.help).unwrap();
    }
    let head = "| flag | default | |\n|---|---|---|\n";
    let (before, rest) = readme.split_once(head).expect("a table of settings");
    let (_, after) = rest.split_once("\n\n").expect("text after the table");
    golden::check("README.md", &format!("{before}{head}{table}\n{after}"));
}

/// Which rooms a room may know. Whatever is pure stays pure because it is not told of anything else.
#[test]
fn rooms_know_only_whom_they_may() {
    let allowed: BTreeMap<&str, &[&str]> = BTreeMap::from([
        ("sample", &["predicament", "sample", "tcp"][..]),
        ("predicament", &[]),
        ("human", &[]),
        ("series", &["sample"]),
        ("shortlist", &[]),
        ("worst", &["account", "cause", "sample", "socket"]),
        ("finding", &["finding", "human", "predicament", "sample", "series", "tcp", "worst"]),
        ("report", &["finding", "human", "predicament", "report", "sample", "series", "worst"]),
        ("page", &["finding", "human", "page", "predicament", "report", "sample", "series", "tcp"]),
        ("socket", &["sample"]),
        ("tcp_info", &[]),
        ("cause", &["cause", "sample", "socket", "tcp"]),
        ("follow", &["cause", "sample", "socket", "tcp"]),
        ("account", &["cause", "sample", "socket"]),
        ("select", &[]),
        ("identity", &[]),
        ("monotonic", &[]),
        ("predicament", &[]),
        (
            "kernel",
            &[
                "account",
                "cause",
                "finding",
                "follow",
                "identity",
                "kernel",
                "monotonic",
                "predicament",
                "sample",
                "select",
                "shortlist",
                "socket",
                "tcp",
                "worst",
            ],
        ),
        ("metrics", &["sample", "metrics"]),
        ("config", &["config"]),
        ("logging", &["config"]),
        ("cli", &["config", "diagnose", "metrics"]),
        ("sampler", &["sample", "kernel", "logging", "report", "series"]),
        ("http", &["sample", "metrics", "config", "http", "page", "report"]),
        ("notify", &["human", "report", "sample", "sampler", "series"]),
        ("daemon", &["config", "http", "kernel", "metrics", "notify", "report", "sample", "sampler"]),
        (
            "diagnose",
            &["config", "http", "human", "kernel", "logging", "report", "sample", "sampler", "series"],
        ),
    ]);
    let source = Path::new(ROOT).join("src");
    let mut seen = 0;
    for file in files(&source, ".rs") {
        let relative = file.strip_prefix(&source).unwrap().to_str().unwrap();
        let room = relative.split(['/', '.']).next().unwrap();
        if room == "main" || room == "lib" {
            continue;
        }
        let allowed =
            allowed.get(room).unwrap_or_else(|| panic!("{room} is a new room: say whom it may know"));
        for used in fs::read_to_string(&file).unwrap().split("crate::").skip(1) {
            let used = used.split(|letter: char| !letter.is_ascii_lowercase()).next().unwrap();
            seen += 1;
            assert!(
                used == room || allowed.contains(&used),
                "{relative} uses {used}, which {room} may not know"
            );
        }
    }
    assert!(seen > 50, "the search works");
}

/// A file that has grown past this is asked whether it is one room.
#[test]
fn no_file_has_outgrown_its_room() {
    const LINES_MAX: usize = 500;
    for file in files(Path::new(ROOT), ".rs") {
        let lines = fs::read_to_string(&file).unwrap().lines().count();
        assert!(lines <= LINES_MAX, "{} has {lines} lines", file.display());
    }
}

/// The document with the table below `head` replaced.
fn with_table(document: &str, head: &str, rows: &str) -> String {
    let (before, rest) = document.split_once(head).expect("the head of a table");
    let (_, after) = rest.split_once("\n\n").expect("text after the table");
    format!("{before}{head}\n{rows}\n{after}")
}

/// The rules stand in the code and the workloads in a table of the tests; the document shows both.
#[test]
fn causes_are_documented_as_they_are_judged_and_proven() {
    let code = fs::read_to_string(Path::new(ROOT).join("src/cause.rs")).unwrap();
    let mut rules = code.lines().filter_map(|line| line.strip_prefix("//! |")).map(|line| format!("|{line}"));
    let head = format!("{}\n{}", rules.next().unwrap(), rules.next().unwrap());
    let rules = rules.fold(String::new(), |rules, line| rules + &line + "\n");
    let rules = ["FLOOR", "HOARD", "SMALL_SEGMENT", "LINGER_MS"].iter().fold(rules, |rules, name| {
        let value = code.split(&format!("pub const {name}: ")).nth(1).expect("a constant of that name");
        let value = value.split(" = ").nth(1).and_then(|rest| rest.split(';').next()).expect("its value");
        rules.replace(&format!("[`{name}`]"), value)
    });
    let document = fs::read_to_string(Path::new(ROOT).join("docs/causes.md")).unwrap();
    let document = with_table(&document, &head, &rules);

    let mut rows = String::new();
    let said =
        |cause: Option<Cause>| cause.map_or("no socket".to_owned(), |cause| format!("`{}`", cause.label()));
    for Workload { name, program, peer, .. } in CULPRITS.iter().chain(INNOCENTS) {
        let name = name.replace('_', " ");
        let [program, peer] = [program, peer].map(|end| format!("{} | {}", end.does, said(end.said)));
        writeln!(rows, "| {name} | {program} | {peer} |").unwrap();
    }
    let causes = CULPRITS.iter().flat_map(|workload| [workload.program.said, workload.peer.said]);
    let causes: BTreeSet<_> = causes.flatten().map(Cause::label).collect();
    assert_eq!(causes.len(), Cause::ALL.len(), "a cause that no program has");
    let head = "| workload | the program | said of it | its peer | said of it |\n|---|---|---|---|---|";
    golden::check("docs/causes.md", &with_table(&document, head, &rows));
}

/// The tables of findings have each kind once, and nothing else.
#[test]
fn every_finding_is_explained() {
    let text = fs::read_to_string(Path::new(ROOT).join("docs/findings.md")).unwrap();
    let mut told: Vec<&str> = text
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split_once('`').map(|(label, _)| label))
        .collect();
    let mut kinds = FindingKind::ALL.map(FindingKind::label);
    told.sort_unstable();
    kinds.sort_unstable();
    assert_eq!(told, kinds);
}

/// What stands in the code, the document and the alerts is one number.
#[test]
fn floors_are_the_same_everywhere() {
    let read = |path: &str| fs::read_to_string(Path::new(ROOT).join(path)).unwrap();
    let (findings, rules) = (read("docs/findings.md"), read("alerts/skmem.rules.yml"));
    let kibibytes = MEMORY_FLOOR / 1024;
    for told in [
        format!("| `not_reading` | {kibibytes} KiB for this cause |"),
        format!("| `accept_queue` | {kibibytes} KiB, {WAITING_FLOOR} connections, or a full queue |"),
        format!("| `close_wait` | {kibibytes} KiB, or {LEAKED_FLOOR} connections |"),
    ] {
        assert!(findings.contains(&told), "{told}");
    }
    for (threshold, floor) in [("leaked_sockets", LEAKED_FLOOR), ("accept_queue_connections", WAITING_FLOOR)]
    {
        let told = format!("record: skmem:threshold:{threshold}, expr: vector({floor})");
        assert!(rules.contains(&told), "{told}");
    }
}

/// The table of privileges is the one that a live test tries.
#[test]
fn privileges_are_documented_as_they_are_tried() {
    let path = "docs/privileges.md";
    let document = fs::read_to_string(Path::new(ROOT).join(path)).unwrap();
    let head = "| it has | its own user's sockets | other users' sockets | namespaces with a mount | \
                other namespaces | `skmem_source_success` is 0 for |\n|---|---|---|---|---|---|";
    let rows: String = privileges::ROWS.iter().map(privileges::Row::told).collect();
    golden::check(path, &with_table(&document, head, &rows));
}

/// A row of a Markdown table: its cells, without the title.
fn row<'a>(text: &'a str, head: &str, title: &str) -> Vec<&'a str> {
    let (_, table) = text.split_once(head).unwrap_or_else(|| panic!("no table {head}"));
    let cells = |line: &'a str| line.trim_matches('|').split('|').map(str::trim).collect::<Vec<_>>();
    let mut rows =
        table.lines().skip_while(|line| !line.starts_with('|')).take_while(|line| line.starts_with('|'));
    let found = rows.by_ref().map(cells).find(|cells| cells[0].replace("**", "") == title);
    found.unwrap_or_else(|| panic!("no row {title} below {head}"))[1..].to_vec()
}

/// Figures of the newest run, wherever they are repeated.
#[test]
fn measured_figures_are_those_of_the_benchmark() {
    let read = |path: &str| fs::read_to_string(Path::new(ROOT).join(path)).unwrap();
    let benchmark = read("docs/benchmark.md");
    // Of the largest count: median (minimum) and ratio.
    let time = |title: &str| {
        let cells = row(&benchmark, "## Time", title);
        let words: Vec<&str> = cells.last().unwrap().split(' ').collect();
        [words[0].to_owned(), words[2].to_owned()]
    };
    let readme = read("README.md");
    for (ours, theirs) in [
        ("the bare kernel dump", "floor: bare kernel dump"),
        ("the bare walk over all file descriptors", "floor: bare walk over all fds"),
        ("our first sample", "our sample, cold"),
        ("our sample, nothing changed", "our sample, nothing changed"),
        ("our sample, 1 % of the sockets replaced", "our sample, 1 % of the sockets replaced"),
        ("`ss -tmn`", "`ss -tmn`"),
        ("`ss -tminp`", "`ss -tminp`"),
        ("node_exporter with tcpstat", "node_exporter scrape, tcpstat only"),
    ] {
        assert_eq!(row(&readme, "## What it costs", ours), time(theirs), "README.md: {ours}");
    }

    let daemon = |title: &str| row(&benchmark, "## The daemon", title);
    let rss = daemon("peak RSS, MiB");
    let (idle, largest) = (rss[0], rss[3]);
    let cpu = daemon("CPU time a sample, ms")[0];
    let churning = daemon("RSS after 10 / 100 / 200 samples, MiB")[3].rsplit(' ').next().unwrap();
    let scrape = row(&benchmark, "## Bars", "99th percentile of scrape latency")[0];
    let whole = |figure: &str| format!("{:.0}", figure.parse::<f64>().unwrap());
    let (idle_mib, largest_mib, churning_mib) = (whole(idle), whole(largest), whole(churning));
    let cpu_ms = whole(cpu);
    let tens = |figure: &str| format!("{:.0}0", figure.parse::<f64>().unwrap() / 10.0);
    let unchanged_ms = tens(&time("our sample, nothing changed")[0]);
    for (path, phrase) in [
        (
            "README.md",
            format!(
                "Peak RSS {largest} MiB there and {idle} MiB on an idle host, where a sample takes {cpu} ms of CPU; a scrape takes {scrape} at"
            ),
        ),
        (
            "deploy/systemd/skmem-exporter.service",
            format!(
                "{idle_mib} MiB on an idle host, {largest_mib} MiB with 200,000 sockets and {churning_mib} MiB where"
            ),
        ),
        (
            "docs/systemd.md",
            format!("{idle_mib} MiB when idle, {largest_mib} to {churning_mib} MiB with 200,000 sockets"),
        ),
        (
            "deploy/kubernetes/base/daemonset.yaml",
            format!(
                "{idle_mib} MiB and {cpu_ms} ms of CPU each 15 s on an idle host; with 200,000 sockets {churning_mib} MiB and {unchanged_ms} ms."
            ),
        ),
        ("docs/kubernetes.md", format!("200,000 of them take {unchanged_ms} ms each")),
    ] {
        assert!(read(path).contains(&phrase), "{path} does not say: {phrase}");
    }
}
