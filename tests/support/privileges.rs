//! What each privilege buys: the table that tests/live/privileges.rs tries row by row, and that docs/privileges.md shows.

/// One set of privileges. Not all who read the table need all of it.
#[allow(dead_code, clippy::struct_excessive_bools)]
#[derive(Debug, Clone, Copy)]
pub struct Row {
    pub has: &'static str,
    /// Whether it runs as root; otherwise as nobody.
    pub is_root: bool,
    /// What setpriv is told; `None`: all.
    pub capabilities: Option<&'static [&'static str]>,
    /// Whether it finds the owners of its own user's sockets, in its own network namespace.
    pub own: bool,
    /// Those of all other users.
    pub foreign: bool,
    /// Whether it reads other network namespaces that have a bind mount.
    pub mounted: bool,
    /// Those that have processes only.
    pub unmounted: bool,
}

impl Row {
    /// The sources whose `skmem_source_success` is 0.
    pub fn failing(&self) -> Vec<&'static str> {
        let mut failing = Vec::new();
        if !self.unmounted {
            failing.push("namespaces");
        }
        if !self.foreign {
            failing.push("owners");
        }
        failing
    }

    /// The row in the document.
    #[allow(dead_code)]
    pub fn told(&self) -> String {
        let whether = |is_so| if is_so { "yes" } else { "no" };
        let failing = match self.failing().join("`, `") {
            none if none.is_empty() => "none".to_owned(),
            some => format!("`{some}`"),
        };
        let [own, foreign, mounted, unmounted] =
            [self.own, self.foreign, self.mounted, self.unmounted].map(whether);
        format!("| {} | {own} | {foreign} | {mounted} | {unmounted} | {failing} |\n", self.has)
    }
}

const NOBODY: Row = Row {
    has: "nothing",
    is_root: false,
    capabilities: Some(&[]),
    own: true,
    foreign: false,
    mounted: false,
    unmounted: false,
};

pub const ROWS: &[Row] = &[
    NOBODY,
    Row { has: "`CAP_DAC_READ_SEARCH`", capabilities: Some(&["dac_read_search"]), ..NOBODY },
    Row { has: "`CAP_SYS_PTRACE`", capabilities: Some(&["sys_ptrace"]), ..NOBODY },
    Row { has: "`CAP_SYS_ADMIN`", capabilities: Some(&["sys_admin"]), mounted: true, ..NOBODY },
    Row {
        has: "`CAP_DAC_READ_SEARCH`, `CAP_SYS_PTRACE`",
        capabilities: Some(&["dac_read_search", "sys_ptrace"]),
        foreign: true,
        ..NOBODY
    },
    Row {
        has: "those two and `CAP_SYS_ADMIN`",
        capabilities: Some(&["dac_read_search", "sys_ptrace", "sys_admin"]),
        foreign: true,
        mounted: true,
        unmounted: true,
        ..NOBODY
    },
    Row {
        has: "root",
        is_root: true,
        capabilities: None,
        foreign: true,
        mounted: true,
        unmounted: true,
        ..NOBODY
    },
    Row { has: "root, all capabilities dropped", is_root: true, own: false, ..NOBODY },
];
