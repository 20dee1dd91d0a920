//! What the daemon has given up is gone: capabilities, privileges and system calls, thread by thread. Wants root.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::process::{getpid, test_kill_process};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter};
use skmem_exporter::kernel::confine::filter::{self, ABSENT, REFUSED, REFUSED_HERE, REFUSED_NEW};
use skmem_exporter::kernel::confine::{Role, confine};
use skmem_exporter::kernel::diag::ASKER;

const BINARY: &str = env!("CARGO_BIN_EXE_skmem-exporter");
/// Longer than anything here should take, on a machine with other things to do.
const PATIENCE: Duration = Duration::from_secs(20);
const SAMPLER: Role = Role::Sampler { all_namespaces: true };

const NET_BIND_SERVICE: u64 = 1 << 10;
const DAC_READ_SEARCH: u64 = 1 << 2;
const SYS_PTRACE: u64 = 1 << 19;
const SYS_ADMIN: u64 = 1 << 21;

/// Makes each call with arguments that no kernel takes, and says with which error it failed (0: it did not).
const CALLER: &str = r"
import ctypes, json, sys
libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long
said = {}
for name, arguments in json.loads(sys.argv[1]).items():
    ctypes.set_errno(0)
    result = libc.syscall(*[ctypes.c_long(argument) for argument in arguments])
    said[name] = ctypes.get_errno() if result == -1 else 0
print(json.dumps(said))
";

type Calls = BTreeMap<String, Vec<i64>>;

/// How these calls fail in a program that a thread with `role`'s filter starts; `None`: without a filter.
fn errors(role: Option<Role>, calls: &Calls) -> BTreeMap<String, i32> {
    let calls = serde_json::to_string(calls).unwrap();
    let thread = std::thread::spawn(move || {
        if let Some(role) = role {
            filter::install(role).unwrap();
        }
        Command::new("/usr/bin/python3")
            .args(["-I", "-B", "-c", CALLER, &calls])
            .stdin(Stdio::null())
            .output()
            .unwrap()
    });
    let output = thread.join().unwrap();
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Whether this host's settings refuse a call to everybody.
fn is_refused_by_the_host(name: &str) -> bool {
    let says = |path: &str, what: &str| fs::read_to_string(path).is_ok_and(|text| text.contains(what));
    let is_locked_down = || {
        ["[integrity]", "[confidentiality]"].iter().any(|what| says("/sys/kernel/security/lockdown", what))
    };
    match name {
        "SYS_kexec_load" | "SYS_kexec_file_load" => {
            is_locked_down() || says("/proc/sys/kernel/kexec_load_disabled", "1")
        }
        "SYS_init_module" | "SYS_finit_module" | "SYS_delete_module" => {
            says("/proc/sys/kernel/modules_disabled", "1")
        }
        _ => name.starts_with("SYS_io_uring") && says("/proc/sys/kernel/io_uring_disabled", "2"),
    }
}

#[test]
fn whatever_the_capabilities_would_open_and_we_never_use_is_refused() {
    let all = REFUSED.iter().chain(REFUSED_HERE).chain(REFUSED_NEW);
    let calls: Calls =
        all.map(|(name, number)| ((*name).to_owned(), vec![*number, -1, -1, -1, -1, -1, -1])).collect();
    assert!(calls.len() > 100, "the list is there");
    for (name, error) in errors(Some(SAMPLER), &calls) {
        assert_eq!(error, libc::EPERM, "{name}");
    }

    // The same without the filter fails for another reason, or all of the above would say nothing. Left out: what has
    // no argument to get wrong and would do something.
    let harmless: Calls = calls
        .into_iter()
        .filter(|(name, _)| !["SYS_vhangup", "SYS_personality"].contains(&name.as_str()))
        .filter(|(name, _)| !is_refused_by_the_host(name))
        .collect();
    let otherwise = errors(None, &harmless);
    let same: Vec<_> = otherwise.iter().filter(|(_, error)| **error == libc::EPERM).collect();
    assert!(same.is_empty(), "refused without a filter, too: {same:?}");

    let absent: Calls =
        ABSENT.iter().map(|(name, number)| ((*name).to_owned(), vec![*number, -1, -1, -1, -1])).collect();
    assert!(errors(Some(SAMPLER), &absent).values().all(|error| *error == libc::ENOSYS));
    assert!(errors(None, &absent).values().all(|error| *error != libc::ENOSYS));
}

#[test]
fn calls_that_are_used_are_refused_in_other_ways_than_ours() {
    let call = |name: &str, arguments: &[i64]| (name.to_owned(), arguments.to_vec());
    let family = |family: i32| vec![libc::SYS_socket, i64::from(family), i64::from(libc::SOCK_RAW), 0];
    let open = |flags: i32| vec![libc::SYS_openat, -1, -1, i64::from(flags)];
    let clone = |flags: i32| vec![libc::SYS_clone, i64::from(flags | libc::CLONE_SIGHAND), 0, 0, 0, 0];
    // clone(CLONE_SIGHAND) without CLONE_VM and an open of no path fail by themselves, so that nothing happens where no filter does.
    let refused: Calls = BTreeMap::from([
        call("AF_PACKET", &family(libc::AF_PACKET)),
        call("AF_ALG", &family(libc::AF_ALG)),
        call("AF_VSOCK", &family(libc::AF_VSOCK)),
        call("AF_KEY", &family(15)),
        call("O_WRONLY", &open(libc::O_WRONLY)),
        call("O_RDWR", &open(libc::O_RDWR | libc::O_CLOEXEC)),
        call("O_CREAT", &open(libc::O_CREAT)),
        call("O_TRUNC", &open(libc::O_TRUNC)),
        call("O_TMPFILE", &open(libc::O_TMPFILE | libc::O_RDWR)),
        call("any namespace", &[libc::SYS_setns, -1, 0]),
        call("mount namespace", &[libc::SYS_setns, -1, i64::from(libc::CLONE_NEWNS)]),
        call("new user namespace", &clone(libc::CLONE_NEWUSER)),
        call("new mount namespace", &clone(libc::CLONE_NEWNS)),
        call("new network namespace", &clone(libc::CLONE_NEWNET)),
        call("another's limits", &[libc::SYS_prlimit64, 1, 7, 1, 0]),
        call(
            "code written at run time",
            &[libc::SYS_mprotect, 0, 0, i64::from(libc::PROT_READ | libc::PROT_EXEC)],
        ),
        call("code in memory shared twice", &[libc::SYS_shmat, -1, 0, i64::from(libc::SHM_EXEC)]),
    ]);
    for (name, error) in errors(Some(SAMPLER), &refused) {
        assert_eq!(error, libc::EPERM, "{name}");
    }
    let otherwise = errors(None, &refused);
    let same: Vec<_> = otherwise.iter().filter(|(_, error)| **error == libc::EPERM).collect();
    assert!(same.is_empty(), "refused without a filter, too: {same:?}");

    let used: Calls = BTreeMap::from([
        call("AF_UNIX", &[libc::SYS_socket, 1, i64::from(libc::SOCK_DGRAM), 0]),
        call("AF_INET", &[libc::SYS_socket, 2, i64::from(libc::SOCK_STREAM), 0]),
        call("AF_INET6", &[libc::SYS_socket, 10, i64::from(libc::SOCK_STREAM), 0]),
        call("AF_NETLINK", &[libc::SYS_socket, 16, i64::from(libc::SOCK_RAW), 4]),
        call("own limits", &[libc::SYS_prlimit64, 0, 7, 0, 0]),
        call(
            "kcmp",
            &[libc::SYS_kcmp, i64::from(std::process::id()), i64::from(std::process::id()), 2, 0, 0],
        ),
    ]);
    assert!(errors(Some(SAMPLER), &used).values().all(|error| *error == 0));
    let network: Calls =
        BTreeMap::from([call("network namespace", &[libc::SYS_setns, -1, i64::from(libc::CLONE_NEWNET)])]);
    assert_eq!(errors(Some(SAMPLER), &network)["network namespace"], libc::EBADF, "entered, were it one");
}

fn is_refused<T>(result: std::io::Result<T>) -> bool {
    result.is_err_and(|error| error.raw_os_error() == Some(libc::EPERM))
}

#[test]
fn a_thread_that_serves_opens_starts_and_enters_nothing() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let namespace = File::open("/proc/thread-self/ns/net").unwrap();
    let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let serve = move || {
        assert_eq!(confine(SAMPLER), Vec::<String>::new());
        assert_eq!(confine(Role::Server), Vec::<String>::new());
        assert!(is_refused(File::open("/proc/self/status")));
        assert!(is_refused(fs::write("/dev/null", "x")));
        assert!(is_refused(Command::new("/bin/true").spawn()));
        assert!(is_refused(UdpSocket::bind("127.0.0.1:0")));
        assert_eq!(test_kill_process(getpid()), Err(Errno::PERM));
        let entered = move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network));
        assert_eq!(entered, Err(Errno::PERM));
        // What it does all day.
        UnixDatagram::unbound().unwrap();
        assert!(is_refused(UnixStream::connect("/nonexistent")), "to no service of the host");
        listener.accept().unwrap().0.write_all(b"x").unwrap();
        std::thread::spawn(|| ()).join().unwrap();
    };
    std::thread::spawn(serve).join().unwrap();
    let mut answer = [0];
    client.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"x");
    // Another thread of the same process has everything still.
    File::open("/proc/self/status").unwrap();
}

#[test]
fn the_thread_for_web_files_reads_and_nothing_else() {
    let read = || {
        assert_eq!(confine(SAMPLER), Vec::<String>::new());
        assert_eq!(confine(Role::Files), Vec::<String>::new());
        File::open("/proc/self/status").unwrap();
        assert!(is_refused(File::create("/dev/null")));
        assert!(is_refused(Command::new("/bin/true").spawn()));
        assert!(is_refused(UdpSocket::bind("127.0.0.1:0")));
    };
    std::thread::spawn(read).join().unwrap();
}

/// A recorded host, so that whatever runs beside a test does not matter, and a binary that everybody may run.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
        fs::copy(BINARY, directory.path().join("skmem-exporter")).unwrap();
        let host = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/host/proc");
        assert!(Command::new("cp").arg("-a").arg(host).arg(directory.path()).status().unwrap().success());
        // Whatever the umask was when it was built and checked out.
        let everybody = Command::new("chmod").args(["-R", "a+rX"]).arg(directory.path()).status().unwrap();
        assert!(everybody.success());
        Self(directory)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// The daemon, started by a command that ends in exec.
    fn start(&self, by: &[String], flags: &[&str]) -> Daemon {
        let mut command = by.iter().map(Into::into).chain([self.path("skmem-exporter")]);
        let mut child = Command::new(command.next().unwrap())
            .args(command)
            .args(["--sample.interval=1s", "--path.procfs"])
            .arg(self.path("proc"))
            .args(flags)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let hello = lines.next().unwrap().unwrap();
        std::thread::spawn(move || lines.for_each(drop));
        let mut daemon = Daemon { child, hello, address: ([127, 0, 0, 1], 0).into() };
        let url = daemon.hello.split_once("://").unwrap_or_else(|| panic!("{}", daemon.hello)).1;
        let address = url.split('/').next().unwrap().replace("localhost", "127.0.0.1");
        daemon.address = address.parse().unwrap();
        daemon
    }
}

struct Daemon {
    child: Child,
    hello: String,
    address: SocketAddr,
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A command that gives nobody these capabilities.
fn nobody_with(capabilities: &str) -> Vec<String> {
    let mut words =
        ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"].map(str::to_owned).to_vec();
    words.push(format!("--inh-caps={capabilities}"));
    words.push(format!("--ambient-caps={capabilities}"));
    words
}

/// A line of a task's status.
fn field(status: &str, name: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(":\t"));
    let radix = if name.starts_with("Cap") { 16 } else { 10 };
    u64::from_str_radix(line.unwrap_or_else(|| panic!("no {name} in {status}")), radix).unwrap()
}

/// The status of a task that has given up whatever it had beside `kept`.
#[track_caller]
fn has_only(status: &str, kept: u64) {
    assert_eq!((field(status, "CapEff"), field(status, "CapPrm")), (kept, kept), "{status}");
    assert_eq!((field(status, "CapInh"), field(status, "CapAmb")), (0, 0), "{status}");
    assert_eq!((field(status, "NoNewPrivs"), field(status, "Seccomp")), (1, 2), "{status}");
}

/// Each thread by name.
fn threads(daemon: &Daemon) -> Vec<(String, String)> {
    let tasks = fs::read_dir(format!("/proc/{}/task", daemon.child.id())).unwrap();
    tasks
        .filter_map(|task| {
            let status = fs::read_to_string(task.unwrap().path().join("status")).ok()?;
            Some((status.lines().next()?.split_once('\t')?.1.to_owned(), status))
        })
        .collect()
}

/// Whether the sampler, and it alone, has `kept`.
#[track_caller]
fn only_the_sampler_has(daemon: &Daemon, kept: u64) {
    assert!(daemon.hello.contains("confined=yes"), "{}", daemon.hello);
    let begin = Instant::now();
    // The workers are started after the first line, and a thread gives itself its name.
    let named = |wanted| threads(daemon).iter().filter(|(name, _)| name == wanted).count();
    while named("sampler") < 1 || named("tokio-rt-worker") < 2 {
        assert!(begin.elapsed() < PATIENCE, "{:?}", threads(daemon));
        std::thread::sleep(Duration::from_millis(10));
    }
    for (name, status) in threads(daemon) {
        has_only(
            &status,
            match name.as_str() {
                "sampler" => kept,
                "web-files" => kept & DAC_READ_SEARCH,
                _ => 0,
            },
        );
    }
}

#[test]
fn every_thread_has_what_it_needs_and_no_more() {
    let place = Place::new();
    let free = "--web.listen-address=127.0.0.1:0";
    let root = place.start(&[], &[free]);
    only_the_sampler_has(&root, DAC_READ_SEARCH | SYS_PTRACE | SYS_ADMIN);
    for (name, status) in threads(&root) {
        assert_eq!(field(&status, "CapBnd"), 0, "{name} could regain it by an exec");
    }
    only_the_sampler_has(&place.start(&[], &[free, "--netns=own"]), DAC_READ_SEARCH | SYS_PTRACE);

    let all = "+dac_read_search,+sys_ptrace,+sys_admin,+net_admin,+sys_chroot,+kill";
    only_the_sampler_has(&place.start(&nobody_with(all), &[free]), DAC_READ_SEARCH | SYS_PTRACE | SYS_ADMIN);
    let own = place.start(&nobody_with(all), &[free, "--netns=own"]);
    only_the_sampler_has(&own, DAC_READ_SEARCH | SYS_PTRACE);
    only_the_sampler_has(&place.start(&nobody_with("+sys_ptrace"), &[free]), SYS_PTRACE);
    only_the_sampler_has(&place.start(&nobody_with("-all"), &[free]), 0);
}

#[test]
fn a_port_below_1024_is_bound_before_the_right_to_it_goes() {
    let place = Place::new();
    let port = (600..1024).find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok()).unwrap();
    let listen = format!("--web.listen-address=127.0.0.1:{port}");
    for by in [vec![], nobody_with("+net_bind_service,+sys_ptrace")] {
        let daemon = place.start(&by, &[&listen, "--netns=own"]);
        assert_eq!(daemon.address.port(), port);
        let mut stream = TcpStream::connect(daemon.address).unwrap();
        stream.write_all(b"GET /-/healthy HTTP/1.0\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.contains(" 200 "), "{answer}");
        for (name, status) in threads(&daemon) {
            assert_eq!(field(&status, "CapPrm") & NET_BIND_SERVICE, 0, "{name}");
        }
    }
}

/// The certificate that a server shows.
fn certificate(address: SocketAddr) -> String {
    let script =
        "import ssl, sys; print(ssl.get_server_certificate((sys.argv[1], int(sys.argv[2]))), end='')";
    let shown = Command::new("/usr/bin/python3")
        .args(["-I", "-c", script, &address.ip().to_string(), &address.port().to_string()])
        .output()
        .unwrap();
    assert!(shown.status.success(), "{shown:?}");
    String::from_utf8(shown.stdout).unwrap().replace('\n', "")
}

#[test]
fn keys_that_only_root_may_read_are_read_again() {
    let place = Place::new();
    let secret = place.path("secret");
    fs::create_dir(&secret).unwrap();
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o700)).unwrap();
    let renew = || {
        let pair = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        for (name, text) in [("cert.pem", pair.cert.pem()), ("key.pem", pair.signing_key.serialize_pem())] {
            fs::write(secret.join("new"), text).unwrap();
            fs::set_permissions(secret.join("new"), fs::Permissions::from_mode(0o600)).unwrap();
            fs::rename(secret.join("new"), secret.join(name)).unwrap();
        }
        pair.cert.pem().replace(['\r', '\n'], "")
    };
    let config = secret.join("web.yml");
    fs::write(&config, "tls_server_config: {cert_file: cert.pem, key_file: key.pem}\n").unwrap();
    let flag = format!("--web.config.file={}", config.display());
    // Root without CAP_DAC_OVERRIDE reads files of others by the same capability.
    for by in [vec![], nobody_with("+dac_read_search")] {
        for file in ["web.yml", "cert.pem", "key.pem"] {
            let owner = if by.is_empty() { 65534 } else { 0 };
            if file != "web.yml" {
                renew();
            }
            rustix::fs::chown(secret.join(file), Some(rustix::fs::Uid::from_raw(owner)), None).unwrap();
            fs::set_permissions(secret.join(file), fs::Permissions::from_mode(0o600)).unwrap();
        }
        let first = renew();
        let daemon = place.start(&by, &["--web.listen-address=127.0.0.1:0", "--netns=own", &flag]);
        assert_eq!(certificate(daemon.address), first);
        let second = renew();
        assert_ne!(first, second);
        assert_eq!(certificate(daemon.address), second, "with {by:?}");
        only_the_sampler_has(
            &daemon,
            if by.is_empty() { DAC_READ_SEARCH | SYS_PTRACE } else { DAC_READ_SEARCH },
        );
    }
}

/// In a sandbox that refuses capset and seccomp, as service managers' lists do.
#[test]
fn what_cannot_be_given_up_is_said_and_no_reason_not_to_start() {
    let place = Place::new();
    let refused = [libc::SYS_capset, libc::SYS_seccomp].map(|call| (call, Vec::new()));
    let errno = SeccompAction::Errno(libc::EPERM.cast_unsigned());
    let arch = std::env::consts::ARCH.try_into().unwrap();
    let filter = SeccompFilter::new(refused.into(), SeccompAction::Allow, errno, arch).unwrap();
    let start = move || {
        seccompiler::apply_filter(&BpfProgram::try_from(filter).unwrap()).unwrap();
        let daemon = place.start(&[], &["--web.listen-address=127.0.0.1:0"]);
        (place, daemon)
    };
    let (_place, daemon) = std::thread::spawn(start).join().unwrap();
    let hello = &daemon.hello;
    assert!(
        hello.contains("confined=\"but for capabilities (") && hello.contains("unused system calls ("),
        "{hello}"
    );
    assert_eq!(hello.matches("unused system calls").count(), 1, "{hello}");
    let mut stream = TcpStream::connect(daemon.address).unwrap();
    stream.write_all(b"GET /-/healthy HTTP/1.0\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.contains(" 200 "), "{answer}");
}

/// One thread without capabilities would be the way in for them all.
#[test]
fn no_process_of_its_user_reads_its_memory() {
    let place = Place::new();
    let daemon =
        place.start(&nobody_with("+dac_read_search,+sys_ptrace"), &["--web.listen-address=127.0.0.1:0"]);
    let as_nobody = |script: &str, pid: u32| {
        let words = nobody_with("-all");
        let output = Command::new(&words[0])
            .args(&words[1..])
            .args(["sh", "-c", script, "sh", &pid.to_string()])
            .output()
            .unwrap();
        (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let open = "exec 3<>/proc/$1/mem";
    let (opened, said) = as_nobody(open, daemon.child.id());
    assert!(!opened && said.contains("ermission denied"), "{said}");
    // Another one of that user can be, or this would say nothing.
    let (opened, said) = as_nobody("sleep 20 & pid=$!; sleep 0.5; exec 3<>/proc/$pid/mem; kill $pid", 0);
    assert!(opened, "{said}");
}

/// Started by root, with nothing dropped before.
#[test]
fn the_asker_gives_up_everything() {
    let mut child =
        Command::new(BINARY).arg(ASKER).stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    let status = || fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
    let begin = Instant::now();
    while field(&status(), "Seccomp") == 0 && begin.elapsed() < PATIENCE {
        std::thread::sleep(Duration::from_millis(5));
    }
    let status = status();
    drop(child.stdin.take());
    let ended = child.wait().unwrap();
    has_only(&status, 0);
    assert!(ended.success(), "and does its work");
}
