//! Chromium over its DevTools protocol: JSON messages, each ended by a NUL, on two pipes.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use base64::{Engine, prelude::BASE64_STANDARD};
use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::{Value, json};
use tempfile::TempDir;

const CHROMIUM: &str = "/usr/bin/chromium";

/// Longer than one answer of the browser or one wait takes, on a machine with other things to do.
const PATIENCE: Duration = Duration::from_secs(20);

/// Two processors do not carry several browsers in time.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// What Chromium needs to run as root and to leave the network alone.
const FLAGS: &str = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking \
     --disable-component-update --disable-sync --hide-scrollbars --remote-debugging-pipe";

/// One browser with one page; killed when dropped.
pub struct Browser {
    child: Child,
    to: ChildStdin,
    from: Receiver<Value>,
    session: String,
    calls: u64,
    events: Vec<Value>,
    _profile: TempDir,
    _turn: MutexGuard<'static, ()>,
}

impl Browser {
    /// Starts one with an empty page as wide as a laptop's.
    pub fn start() -> Self {
        assert!(
            Path::new(CHROMIUM).exists(),
            "{CHROMIUM} is missing: install Debian's package chromium, or run scripts/test-tools"
        );
        let turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        let profile = TempDir::new().unwrap();
        let directory = profile.path().display();
        // It reads its commands from descriptor 3 and answers on 4.
        let line =
            format!("exec {CHROMIUM} {FLAGS} --user-data-dir={directory} 3<&0 4>&1 </dev/null >/dev/null");
        let mut child = Command::new("/bin/sh")
            .args(["-c", &line])
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let to = child.stdin.take().unwrap();
        let answers = BufReader::new(child.stdout.take().unwrap());
        let (sender, from) = mpsc::channel();
        // So that waiting for an answer can end. The thread ends with the browser.
        std::thread::spawn(move || {
            for message in answers.split(0).map_while(Result::ok) {
                let Ok(message) = serde_json::from_slice(&message) else { return };
                if sender.send(message).is_err() {
                    return;
                }
            }
        });
        let session = String::new();
        let mut browser =
            Self { child, to, from, session, calls: 0, events: Vec::new(), _profile: profile, _turn: turn };
        let target = browser.call("Target.createTarget", &json!({ "url": "about:blank" }));
        let attach = json!({ "targetId": target["targetId"], "flatten": true });
        let attached = browser.call("Target.attachToTarget", &attach);
        attached["sessionId"].as_str().unwrap().clone_into(&mut browser.session);
        for domain in ["Page", "Runtime", "Log", "Network"] {
            browser.call(&format!("{domain}.enable"), &json!({}));
        }
        browser.resize(1280);
        browser
    }

    /// Calls a method and waits for its result; events that come meanwhile are kept.
    #[track_caller]
    pub fn call(&mut self, method: &str, parameters: &Value) -> Value {
        self.calls += 1;
        let id = self.calls;
        let mut message = json!({ "id": id, "method": method, "params": parameters });
        if !self.session.is_empty() {
            message["sessionId"] = self.session.clone().into();
        }
        self.to.write_all(message.to_string().as_bytes()).unwrap();
        self.to.write_all(&[0]).unwrap();
        loop {
            let message =
                self.from.recv_timeout(PATIENCE).unwrap_or_else(|error| panic!("{method}: {error}"));
            if message["id"] == id {
                assert!(message["error"].is_null(), "{method}: {}", message["error"]);
                return message["result"].clone();
            }
            self.events.push(message);
        }
    }

    /// Opens an address and waits until its page is loaded.
    #[track_caller]
    pub fn open(&mut self, url: &str) {
        let result = self.call("Page.navigate", &json!({ "url": url }));
        assert!(result["errorText"].is_null(), "{url}: {}", result["errorText"]);
        self.until("document.readyState === 'complete' && location.href !== 'about:blank'");
    }

    /// The value of an expression in the page; of a promise, what becomes of it.
    #[track_caller]
    pub fn value(&mut self, expression: &str) -> Value {
        let parameters = json!({ "expression": expression, "returnByValue": true, "awaitPromise": true });
        let result = self.call("Runtime.evaluate", &parameters);
        assert!(result["exceptionDetails"].is_null(), "{expression}: {}", result["exceptionDetails"]);
        result["result"]["value"].clone()
    }

    /// Waits until an expression is true.
    #[track_caller]
    pub fn until(&mut self, expression: &str) {
        let end = Instant::now() + PATIENCE;
        while self.value(expression) != true {
            assert!(Instant::now() < end, "never: {expression}\n{}", self.value("document.body.innerText"));
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Presses a key and lets it go.
    pub fn press(&mut self, key: &str) {
        // Enter is nothing to a page without its text.
        let text = if key == "Enter" { "\r" } else { "" };
        let code = if key == "Enter" { 13 } else { 9 };
        for kind in ["keyDown", "keyUp"] {
            let text = if kind == "keyDown" { text } else { "" };
            let event =
                json!({ "type": kind, "key": key, "code": key, "text": text, "windowsVirtualKeyCode": code });
            self.call("Input.dispatchKeyEvent", &event);
        }
    }

    /// Makes the window this wide.
    pub fn resize(&mut self, width: u32) {
        let metrics = json!({ "width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500 });
        self.call("Emulation.setDeviceMetricsOverride", &metrics);
    }

    /// Whether the reader prefers `dark` or `light`.
    pub fn prefer(&mut self, scheme: &str) {
        let feature = json!({ "name": "prefers-color-scheme", "value": scheme });
        self.call("Emulation.setEmulatedMedia", &json!({ "features": [feature] }));
    }

    /// Whether pages may run scripts; what is asked by [`Self::value`] runs anyway.
    pub fn allow_scripts(&mut self, may: bool) {
        self.call("Emulation.setScriptExecutionDisabled", &json!({ "value": !may }));
    }

    /// A picture of the whole page, in the build directory.
    pub fn screenshot(&mut self, name: &str) {
        let height = self.value("document.documentElement.scrollHeight");
        let width = self.value("innerWidth");
        let clip = json!({ "x": 0, "y": 0, "width": width, "height": height, "scale": 1 });
        let parameters = json!({ "captureBeyondViewport": true, "clip": clip });
        let picture = self.call("Page.captureScreenshot", &parameters);
        let picture = BASE64_STANDARD.decode(picture["data"].as_str().unwrap()).unwrap();
        std::fs::write(Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}.png")), picture).unwrap();
    }

    fn events(&self, method: &str) -> impl Iterator<Item = &Value> {
        self.events.iter().filter(move |event| event["method"] == method).map(|event| &event["params"])
    }

    /// Whatever the browser has complained of: console, exceptions, policy violations, failed requests.
    pub fn complaints(&self) -> Vec<String> {
        ["Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded"]
            .into_iter()
            .flat_map(|method| self.events(method))
            .map(Value::to_string)
            .collect()
    }

    /// Where requests went.
    pub fn requests(&self) -> Vec<String> {
        self.events("Network.requestWillBeSent")
            .map(|event| event["request"]["url"].as_str().unwrap_or_default().to_owned())
            .collect()
    }

    /// How often a page was opened.
    pub fn navigations(&self) -> usize {
        self.events("Page.frameNavigated").count()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // With its renderers.
        if let Some(group) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            let _ = kill_process_group(group, Signal::KILL);
        }
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("the browser complains:\n{}", self.complaints().join("\n"));
        }
    }
}
