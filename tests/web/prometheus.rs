//! Prometheus as the client, configured as the document says.

use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

use crate::document::example;
use crate::kit::daemon::Daemon;
use crate::kit::host::{eventually, holds, same, shared};
use crate::kit::servers::Prometheus;
use crate::site::Site;

/// One that scrapes the daemon each second.
fn start(site: &Site, daemon: &Daemon) -> Prometheus {
    let config = example("prometheus.yml");
    assert!(config.contains("localhost:10477"));
    let config = config.replace("localhost:10477", &format!("localhost:{}", daemon.address.port()));
    site.write("prometheus.yml", &format!("global: {{scrape_interval: 1s, scrape_timeout: 1s}}\n{config}"));
    Prometheus::start_at(&site.path("prometheus.yml"))
}

/// Waits until a scrape that began after `since` has succeeded.
#[track_caller]
fn is_up(prometheus: &Prometheus, since: &str) {
    ends(prometheus, "up", since, &[""]);
}

/// Waits until one has failed with an error that has one of these in it.
#[track_caller]
fn is_down(prometheus: &Prometheus, since: &str, why: &[&str]) {
    ends(prometheus, "down", since, why);
}

#[track_caller]
fn ends(prometheus: &Prometheus, health: &str, since: &str, why: &[&str]) {
    eventually(health, || {
        let data = prometheus.ask("/api/v1/targets?state=active")?;
        let target = &data["activeTargets"][0];
        same("health", &target["health"], &json!(health)).map_err(|error| format!("{error}: {target}"))?;
        let [last, error] = ["lastScrape", "lastError"].map(|key| target[key].as_str().unwrap_or_default());
        holds(|| format!("the newest scrape is of {last}"), last > since)?;
        holds(|| format!("{error}, none of {why:?}"), why.iter().any(|part| error.contains(part)))
    });
}

/// Now, as Prometheus writes it.
fn now(site: &Site) -> String {
    site.script("date -u +%Y-%m-%dT%H:%M:%S.%N").trim().to_owned()
}

/// The lines of the daemon's log from a level on up that came since there were `after` of them.
fn complaints(daemon: &Daemon, after: usize) -> Vec<String> {
    let log = daemon.log();
    log[after..].iter().filter(|line| line.contains("web configuration file")).cloned().collect()
}

#[test]
fn scrapes_with_certificate_and_password_while_both_change() {
    let _host = shared();
    let (site, daemon) = Site::serving("all");
    let prometheus = start(&site, &daemon);
    is_up(&prometheus, "");

    // A new authority, on the exporter's side only at first: the old client is not let in any more.
    site.script("mkdir old && cp ca.crt client.crt client.key old");
    let new = site.path("renewed");
    std::fs::create_dir(&new).unwrap();
    site.script(&format!("cd renewed\n{}", example("certificates.sh")));
    site.script(
        "for file in server.key server.crt; do cp renewed/$file $file.new && mv $file.new $file; done",
    );
    site.script("cp renewed/ca.crt client-ca.crt");
    let both = std::fs::read_to_string(site.path("web.yml")).unwrap();
    site.write("web.yml", &both.replace("client_ca_file: ca.crt", "client_ca_file: client-ca.crt"));
    // A connection that is open stays open; Prometheus keeps its own until the daemon closes it or it is told to.
    site.script("cat old/ca.crt renewed/ca.crt > ca.crt");
    let reload = || {
        let pid = i32::try_from(prometheus.server.pid()).ok().and_then(Pid::from_raw).unwrap();
        kill_process(pid, Signal::HUP).unwrap();
    };
    // Another scrape configuration gets connections of its own.
    let config = std::fs::read_to_string(site.path("prometheus.yml")).unwrap();
    site.write("prometheus.yml", &config.replace("job_name: skmem", "job_name: again"));
    let since = now(&site);
    reload();
    is_down(&prometheus, &since, &["remote error: tls: "]);
    // With the new one it is.
    site.script(
        "for file in client.key client.crt; do cp renewed/$file $file.new && mv $file.new $file; done",
    );
    site.write("prometheus.yml", &config);
    let since = now(&site);
    reload();
    is_up(&prometheus, &since);
    let said = site.curl(
        &daemon,
        &format!(
            "--cert old/client.crt --key old/client.key --user prometheus:{} TLS/metrics",
            site.password
        ),
    );
    assert!(!said.err.contains("200"), "{said:?}");

    // A broken file: nobody is served, also on connections that are open, until it is mended.
    let good = std::fs::read_to_string(site.path("web.yml")).unwrap();
    let lines = daemon.log().len();
    let since = now(&site);
    site.write("web.yml", &good.replace("basic_auth_users", "basic_auth_user"));
    // A connection that was open is answered 500, a new one closed.
    is_down(&prometheus, &since, &["500", "EOF", "reset"]);
    let said = complaints(&daemon, lines);
    let [line] = said.as_slice() else { panic!("{said:?}") };
    assert!(
        line.contains("level=error") && line.contains("basic_auth_user") && line.contains("line "),
        "{line}"
    );
    let since = now(&site);
    site.write("web.yml", &good);
    is_up(&prometheus, &since);

    // A certificate that is cut short.
    let (lines, since) = (daemon.log().len(), now(&site));
    let whole = std::fs::read_to_string(site.path("server.crt")).unwrap();
    site.write("server.crt", &whole[..whole.len() / 2]);
    is_down(&prometheus, &since, &[""]);
    let said = complaints(&daemon, lines);
    assert!(said.len() == 1 && said[0].contains("cert_file: the PEM in it is damaged"), "{said:?}");
    let since = now(&site);
    site.write("server.crt", &whole);
    is_up(&prometheus, &since);
    let said = complaints(&daemon, lines);
    assert!(said.len() == 2 && said[1].contains("usable again"), "{said:?}");

    // The password changes, too.
    site.script(&example("password.sh"));
    let hash = site.script(&example("hash.sh: htpasswd, of Debian's apache2-utils"));
    let old = site.curl(
        &daemon,
        &format!("--cert client.crt --key client.key --user prometheus:{} TLS/-/healthy", site.password),
    );
    assert!(old.err.contains("200"), "{old:?}");
    site.write("web.yml", &format!("{}  prometheus: {hash}\n", good.split_once("  prometheus:").unwrap().0));
    // Prometheus reads its password file on every scrape.
    let since = now(&site);
    is_up(&prometheus, &since);
    let old = site.curl(
        &daemon,
        &format!("--cert client.crt --key client.key --user prometheus:{} TLS/-/healthy", site.password),
    );
    assert!(old.err.contains("401"), "{old:?}");
}
