//! The page in a browser, over reports of our own.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use skmem_exporter::report::Report;

use crate::browser::Browser;
use crate::rendering::{healthy, hostile, large, nothing};
use crate::report_fixture::busy;
use crate::server::serve_report;

fn now() -> f64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs_f64()
}

/// A report of just now.
fn fresh(report: Report) -> Report {
    Report { timestamp: report.timestamp.map(|_| now()), ..report }
}

/// Texts whose colour is too close to what is behind them: WCAG 2.1 AA, 4.5 to 1, or 3 to 1 for large letters.
const FAINT: &str = r"(() => {
    const channels = (colour) => colour.match(/[\d.]+/g).map(Number);
    const light = (colour) => {
        const [r, g, b] = channels(colour).slice(0, 3).map((c) => {
            c /= 255;
            return c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
        });
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const ground = (element) => {
        for (let at = element; at; at = at.parentElement) {
            const colour = getComputedStyle(at).backgroundColor;
            if ((channels(colour)[3] ?? 1) > 0) return colour;
        }
        return 'rgb(255, 255, 255)';
    };
    const faint = [];
    for (const element of document.querySelectorAll('body *')) {
        const says = [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
        if (!says || ['SCRIPT', 'title', 'desc'].includes(element.tagName) || !element.checkVisibility()) continue;
        const style = getComputedStyle(element);
        const [a, b] = [element.ownerSVGElement ? style.fill : style.color, ground(element)].map(light);
        const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
        const size = parseFloat(style.fontSize);
        const isLarge = size >= 24 || (size >= 18.66 && style.fontWeight >= 700);
        if (ratio < (isLarge ? 3 : 4.5)) faint.push([element.className, element.textContent, ratio]);
    }
    return JSON.stringify(faint);
})()";

#[test]
fn fits_every_screen_and_can_be_read() {
    let mut browser = Browser::start();
    for (name, report) in [
        ("busy", busy()),
        ("hidden", busy().without_addresses()),
        ("nothing", nothing()),
        ("healthy", healthy()),
        ("hostile", hostile()),
        ("large", large()),
    ] {
        let served = serve_report(fresh(report));
        browser.resize(1280);
        browser.open(&served.url);
        for scheme in ["light", "dark"] {
            browser.prefer(scheme);
            assert_eq!(browser.value(FAINT), "[]", "{name} in {scheme}");
        }
        for width in [1280, 800, 375] {
            browser.resize(width);
            for is_open in [false, true] {
                browser.value(&format!(
                    "document.querySelectorAll('details').forEach((one) => one.open = {is_open})"
                ));
                let needed = browser.value("document.scrollingElement.scrollWidth");
                assert_eq!(needed, width, "{name}, open: {is_open}");
            }
        }
        assert!(browser.value("document.getElementById('notice').hidden") == true, "{name}: all is well");
        assert!(browser.value("typeof x") == "undefined" && browser.value("document.images.length") == 0);
        let strangers: Vec<_> =
            browser.requests().into_iter().filter(|url| !url.starts_with("http://127.0.0.1:")).collect();
        assert_eq!(strangers, ["data:,"; 0], "nothing is asked of anybody else");
        assert_eq!(browser.complaints(), [""; 0], "{name}");
    }
}

#[test]
fn renews_itself_around_the_reader() {
    let mut report = fresh(busy());
    report.watch.interval_seconds = 1.0;
    let served = serve_report(report.clone());
    let mut browser = Browser::start();
    browser.resize(375);
    browser.open(&served.url);
    let opened = browser.navigations();
    browser.value(
        "(() => {
            document.getElementById('finding-not_reading-4711').open = false;
            const row = document.getElementById('process-4711');
            row.open = true;
            row.scrollIntoView();
            row.querySelector('summary').focus();
            row.querySelectorAll('.scroll')[1].scrollLeft = 60;
            window.kept = 'this page';
            window.stood = window.scrollY;
        })()",
    );
    let newer = Report {
        timestamp: Some(now()),
        hostname: "renewed".to_owned(),
        findings: report.findings[1..].to_vec(),
        ..report.clone()
    };
    served.publish.send_replace(Arc::new(newer));
    browser.until("document.querySelector('#banner .host').textContent === 'renewed'");
    for (what, expression) in [
        ("it is the same page", "window.kept === 'this page'"),
        ("its title is new", "document.title.startsWith('Warning: renewed')"),
        ("what was opened is open", "document.getElementById('process-4711').open"),
        ("what was not is not", "!document.getElementById('process-812').open"),
        ("the focus stays", "document.activeElement === document.querySelector('#process-4711 > summary')"),
        (
            "what was scrolled stays",
            "document.querySelectorAll('#process-4711 .scroll')[1].scrollLeft === 60",
        ),
        ("commands can be copied", "document.querySelectorAll('.command button').length > 0"),
        ("its age is said", "document.getElementById('age').textContent.endsWith(' ago')"),
    ] {
        assert_eq!(browser.value(expression), true, "{what}: {expression}");
    }
    assert_eq!(browser.navigations(), opened, "without a reload");

    // As long as the length of what is above does not change, nothing moves.
    let stood = browser.value("window.scrollY");
    let later = Report { findings: report.findings[1..].to_vec(), ..report };
    let again = Report { timestamp: Some(now()), hostname: "again".to_owned(), ..later.clone() };
    served.publish.send_replace(Arc::new(again));
    browser.until("document.querySelector('#banner .host').textContent === 'again'");
    assert_eq!(browser.value("window.scrollY"), stood);

    // Who is about to copy something keeps it.
    browser.value("getSelection().selectAllChildren(document.getElementById('verdict'))");
    served.publish.send_replace(Arc::new(Report { timestamp: Some(now() + 4.0), ..later }));
    browser.until("document.getElementById('notice').textContent.includes('text is selected')");
    assert_eq!(browser.value("document.querySelector('#banner .host').textContent"), "again");
    browser.value("getSelection().empty()");
    browser.until("document.querySelector('#banner .host').textContent !== 'again'");
    browser.until("document.getElementById('notice').hidden");
    assert_eq!(browser.complaints(), [""; 0]);
}

#[test]
fn says_when_samples_or_answers_stop() {
    let mut report = busy();
    report.watch.interval_seconds = 1.0;
    report.timestamp = Some(now() - 90.0);
    let served = serve_report(report.clone());
    let mut browser = Browser::start();
    browser.open(&served.url);
    browser.until(
        "/^The newest sample is 1 min 3\\d s old/.test(document.getElementById('notice').textContent)",
    );
    assert_eq!(browser.value("document.getElementById('main').className"), "stale");

    served.publish.send_replace(Arc::new(fresh(report)));
    browser.until("document.getElementById('notice').hidden");
    assert_eq!(browser.value("document.getElementById('main').className"), "");
    assert_eq!(browser.complaints(), [""; 0]);

    drop(served);
    browser
        .until("document.getElementById('notice').textContent.startsWith('The exporter has not answered')");
    assert_eq!(browser.value("document.getElementById('verdict').textContent.length > 10"), true, "it stays");
}

#[test]
fn needs_no_script() {
    let mut report = fresh(busy());
    report.watch.interval_seconds = 1.0;
    let served = serve_report(report);
    let mut browser = Browser::start();
    browser.allow_scripts(false);
    browser.open(&served.url);
    let text = browser.value("document.body.textContent");
    for said in ["report-writer", "112.0 MiB", "futex_wait_queue", "198.51.100.7:40000", "gdb -p 4711"] {
        assert!(text.as_str().unwrap().contains(said), "{said}");
    }
    assert_eq!(browser.value("document.querySelectorAll('.command button').length"), 0, "no dead buttons");
    let opened = browser.navigations();
    let end = Instant::now() + Duration::from_secs(20);
    while browser.navigations() == opened {
        assert!(Instant::now() < end, "it does not load itself anew");
        browser.value("1");
    }
    assert_eq!(browser.complaints(), [""; 0]);
}

/// What the other tests rely on: the browser enforces the policy, and says so.
#[test]
fn nothing_else_runs_or_loads() {
    let served = serve_report(fresh(busy()));
    let mut browser = Browser::start();
    browser.open(&served.url);
    assert_eq!(browser.complaints(), [""; 0]);
    browser.value(
        "(() => {
            const script = document.createElement('script');
            script.textContent = 'window.ran = true';
            document.body.append(script);
            const image = document.createElement('img');
            image.src = 'http://127.0.0.1:9/';
            document.body.append(image);
            document.body.setAttribute('style', 'display: none');
        })()",
    );
    assert_eq!(browser.value("window.ran === undefined && document.body.checkVisibility()"), true);
    let complaints = browser.complaints().join("\n");
    for directive in ["script-src", "img-src", "style-src"] {
        assert!(complaints.contains(directive), "{directive}: {complaints}");
    }
}
