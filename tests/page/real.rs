//! A real daemon, a real culprit, a real browser.

use std::process::Command;

use serde_json::{Value, json};
use skmem_exporter::human;

use crate::browser::Browser;
use crate::kit::actor::Actor;
use crate::kit::daemon::{BINARY, Daemon};
use crate::kit::host::eventually;
use crate::kit::scrape::http_get;

/// A name that a reader of the page would meet.
const NAME: &str = "report-writer";

fn daemon() -> Daemon {
    Daemon::start_command(Command::new(BINARY).args([
        "--web.listen-address=127.0.0.1:0",
        "--sample.interval=1s",
        "--stall.after=3s",
    ]))
}

/// A process that has stopped reading 150 connections and accepts no more.
fn culprit() -> Actor {
    let mut culprit = Actor::start();
    culprit.ask("rename", json!({ "name": NAME.as_bytes() }));
    culprit.ask("pairs", json!({ "prefix": "p", "count": 150, "size": 60_000 }));
    let port = culprit.ask_port("listen", json!({ "name": "queue", "backlog": 8 }));
    for index in 0..5 {
        culprit.ask("connect", json!({ "name": format!("waiting{index}"), "port": port }));
    }
    culprit
}

fn report(daemon: &Daemon) -> Value {
    let (head, body) = http_get(daemon.address, "/api/v1/report").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    serde_json::from_str(&body).unwrap()
}

/// The page's figures of a process, and the report of the same sample.
const BOTH: &str = r"(async () => {
    for (;;) {
        const report = await (await fetch('/api/v1/report')).json();
        const main = document.getElementById('main');
        if (Number(main.dataset.timestamp) === report.timestamp) {
            const row = document.getElementById('process-PID');
            return {
                report,
                row: { ...row.dataset },
                text: row.textContent,
                tcp: document.querySelector('.hero').dataset.bytes,
                pictured: document.getElementById('memory').dataset.bytes,
                processes: document.querySelector('#figure-processes data').value,
                verdict: document.getElementById('verdict').textContent,
                findings: [...document.querySelectorAll('.finding')].map((one) => ({ ...one.dataset })),
                owners: document.querySelector('#owners .legend').textContent,
            };
        }
        await new Promise((done) => setTimeout(done, 50));
    }
})()";

#[test]
fn the_culprit_is_on_the_page() {
    let culprit = culprit();
    let daemon = daemon();
    let pid = culprit.pid;
    eventually("a finding about the culprit", || {
        let report = report(&daemon);
        let is_found = report["findings"]
            .as_array()
            .unwrap()
            .iter()
            .any(|finding| finding["kind"] == "not_reading" && finding["subject"]["pid"] == pid);
        if is_found { Ok(()) } else { Err(report["verdict"].to_string()) }
    });
    let mut browser = Browser::start();
    let url = format!("http://{}/", daemon.address);
    browser.open(&url);
    let opened = browser.navigations();

    agrees_with_the_report(&mut browser, pid);

    // It renews itself, and a row opened by keyboard stays open.
    let row = format!("document.querySelector('#process-{pid} > summary')");
    for _ in 0..200 {
        browser.press("Tab");
        if browser.value(&format!("document.activeElement === {row}")) == true {
            break;
        }
    }
    browser.press("Enter");
    browser.until(&format!("document.getElementById('process-{pid}').open"));
    let before = browser.value("Number(document.getElementById('main').dataset.timestamp)");
    browser.until(&format!("Number(document.getElementById('main').dataset.timestamp) > {before}"));
    browser
        .until(&format!("document.getElementById('process-{pid}').open && document.activeElement === {row}"));
    assert_eq!(browser.navigations(), opened, "without a reload");

    for (scheme, width) in [("light", 1280), ("dark", 1280), ("light", 375)] {
        browser.prefer(scheme);
        browser.resize(width);
        let needed = browser.value("document.scrollingElement.scrollWidth");
        assert_eq!(needed, width);
        browser.screenshot(&format!("status-{scheme}-{width}"));
    }
    browser.prefer("dark");
    assert_eq!(browser.value("getComputedStyle(document.body).backgroundColor"), "rgb(14, 18, 22)");

    // The same is there without JavaScript.
    browser.allow_scripts(false);
    browser.open(&url);
    let text = browser.value("document.body.textContent");
    for said in [NAME, "not_reading", "accept_queue", &format!("pid {pid}"), "127.0.0.1:"] {
        assert!(text.as_str().unwrap().contains(said), "{said}");
    }

    let requests = browser.requests();
    assert!(requests.iter().all(|to| to.starts_with(&url)), "{requests:?}");
    assert_eq!(browser.complaints(), [""; 0]);
}

fn agrees_with_the_report(browser: &mut Browser, pid: u32) {
    let both = browser.value(&BOTH.replace("PID", &pid.to_string()));
    let report = &both["report"];
    let schema: Value =
        serde_json::from_str(include_str!("../../docs/report.schema.json")).expect("the schema is JSON");
    jsonschema::validate(&schema, report).unwrap();
    let process = report["processes"].as_array().unwrap().iter().find(|row| row["pid"] == pid).unwrap();
    assert_eq!(process["process"], NAME);
    for (shown, told) in
        [("memory", "memoryBytes"), ("unread", "receiveQueueBytes"), ("sockets", "sockets"), ("pid", "pid")]
    {
        assert_eq!(both["row"][shown], process[told].to_string(), "{told}");
    }
    let memory = process["memoryBytes"].as_i64().unwrap();
    assert!(memory > 4 << 20, "it holds {memory}");
    let text = both["text"].as_str().unwrap();
    for cause in process["causes"].as_array().unwrap() {
        let said = human::signed_bytes(cause["memoryBytes"].as_i64().unwrap());
        assert!(text.contains(&format!("{} {said}", cause["cause"].as_str().unwrap())), "{cause}: {text}");
    }
    for connection in process["connections"].as_array().unwrap() {
        assert!(text.contains(connection["remote"].as_str().unwrap()), "{connection}: {text}");
    }
    assert!(text.contains(&human::signed_bytes(memory)) && text.contains(NAME));
    assert_eq!(both["tcp"], report["host"]["tcpMemoryBytes"].to_string());
    assert_eq!(both["pictured"], both["tcp"]);
    assert_eq!(both["processes"], report["host"]["processBytes"].to_string());
    assert_eq!(both["verdict"], report["verdict"]);
    let found = |of: &Value, kind: &str| -> Vec<String> {
        of.as_array().unwrap().iter().map(|one| one[kind].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(found(&both["findings"], "kind"), found(&report["findings"], "kind"), "worst first");
    assert!(both["owners"].as_str().unwrap().contains(&format!("{NAME} ({pid})")));
}
