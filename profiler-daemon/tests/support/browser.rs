//! A headless Chromium that a test drives: it shows a page, answers questions about it, takes pictures
//! and tells what the page complained of and asked for.
//!
//! It is driven through the pipe of the `DevTools` protocol: JSON messages that end with a zero byte, commands
//! on file descriptor 3 and answers on 4.

#![allow(dead_code, reason = "each test crate uses a part of it")]

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};

/// How long anything may take on a machine that does other things, too.
const PATIENCE: Duration = Duration::from_secs(30);

/// Its standard streams become those of `DevTools`; what it says otherwise is of no use.
const START: &str = r#"exec "$0" "$@" 3<&0 4>&1 </dev/null >/dev/null 2>&1"#;

/// Neither the desktop nor the network of the machine has anything to do with a test.
const SETTINGS: [&str; 11] = [
    "--headless",
    "--remote-debugging-pipe",
    // Its sandbox does not work for root, and the pages are our own.
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-extensions",
    "--no-first-run",
    "--no-proxy-server",
    "--force-device-scale-factor=1",
];

/// The program, where `cargo xtask test` says that it is, or on `PATH`.
fn program() -> Option<PathBuf> {
    let told = std::env::var_os("SCHEDSCOPE_CHROMIUM").map(PathBuf::from);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let names = ["chromium-headless-shell", "chromium", "google-chrome"];
    let on_path = std::env::split_paths(&path)
        .flat_map(|directory| names.map(|name| directory.join(name)))
        .find(|program| program.is_file());
    told.or(on_path)
}

/// A browser with one page; gone when dropped.
pub(crate) struct Browser {
    child: Child,
    commands: ChildStdin,
    messages: Receiver<Value>,
    profile: PathBuf,
    session: Option<String>,
    sent: u64,
    /// What came that was no answer.
    events: Vec<Value>,
}

impl Browser {
    /// Starts one; `None` if this machine has none.
    pub(crate) fn start() -> Option<Self> {
        static STARTED: AtomicU32 = AtomicU32::new(0);
        let number = STARTED.fetch_add(1, Ordering::Relaxed);
        let profile = Path::new(env!("CARGO_TARGET_TMPDIR"))
            .join(format!("browser-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&profile).expect("a directory for the profile");
        let mut child = Command::new("sh")
            .args(["-c", START])
            .arg(program()?)
            .args(SETTINGS)
            .arg(format!("--user-data-dir={}", profile.display()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a shell starts it");
        let commands = child.stdin.take().expect("it was asked for");
        let answers = child.stdout.take().expect("it was asked for");
        let (sender, messages) = channel();
        thread::spawn(move || {
            for message in BufReader::new(answers).split(0) {
                let Ok(message) = message else { return };
                let message = serde_json::from_slice(&message).expect("DevTools speaks JSON");
                if sender.send(message).is_err() {
                    return;
                }
            }
        });
        let mut browser = Self {
            child,
            commands,
            messages,
            profile,
            session: None,
            sent: 0,
            events: Vec::new(),
        };
        let target = browser.command("Target.createTarget", &json!({"url": "about:blank"}));
        let attach = json!({"targetId": target["targetId"], "flatten": true});
        let session = browser.command("Target.attachToTarget", &attach);
        browser.session = session["sessionId"].as_str().map(str::to_owned);
        for domain in ["Page", "Runtime", "Network", "Log"] {
            browser.command(&format!("{domain}.enable"), &json!({}));
        }
        Some(browser)
    }

    /// Sends a command, and returns what it gives.
    #[track_caller]
    fn command(&mut self, method: &str, parameters: &Value) -> Value {
        self.sent += 1;
        let mut command = json!({"id": self.sent, "method": method, "params": parameters});
        if let Some(session) = &self.session {
            command["sessionId"] = session.as_str().into();
        }
        let mut bytes = command.to_string().into_bytes();
        bytes.push(0);
        self.commands.write_all(&bytes).expect("the browser reads");
        loop {
            let message = self.receive(PATIENCE).unwrap_or_else(|| {
                panic!("no answer to {method} within {PATIENCE:?}: has the browser ended?")
            });
            if message["id"] == self.sent {
                assert!(message["error"].is_null(), "{method}: {message}");
                return message["result"].clone();
            }
            self.events.push(message);
        }
    }

    fn receive(&mut self, patience: Duration) -> Option<Value> {
        self.messages.recv_timeout(patience).ok()
    }

    /// Shows a page, and returns when it has been loaded. What earlier ones said is forgotten.
    #[track_caller]
    pub(crate) fn open(&mut self, address: &str) {
        self.events.clear();
        let shown = self.command("Page.navigate", &json!({ "url": address }));
        assert!(shown["errorText"].is_null(), "{address}: {shown}");
        let begun = Instant::now();
        while !self.has_happened("Page.loadEventFired") {
            assert!(begun.elapsed() < PATIENCE, "{address} is still loading");
            if let Some(event) = self.receive(Duration::from_millis(100)) {
                self.events.push(event);
            }
        }
    }

    fn has_happened(&self, method: &str) -> bool {
        self.events.iter().any(|event| event["method"] == method)
    }

    /// What an expression gives in the page, as JSON; a promise is waited for.
    #[track_caller]
    pub(crate) fn ask(&mut self, expression: &str) -> Value {
        let question =
            json!({"expression": expression, "returnByValue": true, "awaitPromise": true});
        let answer = self.command("Runtime.evaluate", &question);
        let thrown = &answer["exceptionDetails"];
        assert!(thrown.is_null(), "{expression}: {thrown}");
        answer["result"]["value"].clone()
    }

    /// Asks until the answer is `true`.
    #[track_caller]
    pub(crate) fn until(&mut self, expression: &str) {
        let begun = Instant::now();
        while self.ask(expression) != true {
            let text = self.ask("document.body.innerText");
            assert!(
                begun.elapsed() < PATIENCE,
                "{expression} is not true:\n{text}"
            );
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// The text of each element that the selector means, as it is shown.
    #[track_caller]
    pub(crate) fn texts(&mut self, selector: &str) -> Vec<String> {
        let selector = Value::from(selector);
        let found = self.ask(&format!(
            "[...document.querySelectorAll({selector})].map(element => element.innerText.trim())"
        ));
        serde_json::from_value(found).expect("a list of texts")
    }

    /// Has the page shown in a window of this size, for somebody who prefers a light or a dark one.
    #[track_caller]
    pub(crate) fn resize(&mut self, width: u32, height: u32, dark: bool) {
        let metrics = json!({
            "width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600,
        });
        self.command("Emulation.setDeviceMetricsOverride", &metrics);
        let value = if dark { "dark" } else { "light" };
        let media = json!({"features": [{"name": "prefers-color-scheme", "value": value}]});
        self.command("Emulation.setEmulatedMedia", &media);
    }

    /// Takes a picture of the whole page, a PNG, for people to look at; below the directory of what tests
    /// leave.
    #[track_caller]
    pub(crate) fn picture(&mut self, name: &str) -> PathBuf {
        let taken = self.command(
            "Page.captureScreenshot",
            &json!({"format": "png", "captureBeyondViewport": true}),
        );
        let data = taken["data"].as_str().expect("a picture");
        let data = BASE64_STANDARD.decode(data).expect("base64");
        let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("pages");
        std::fs::create_dir_all(&directory).expect("a directory for pictures");
        let path = directory.join(format!("{name}.png"));
        std::fs::write(&path, data).expect("it is written");
        path
    }

    /// What the page complained of since it was opened: exceptions, errors and warnings on the console,
    /// and what the browser refused or could not load.
    pub(crate) fn complaints(&mut self) -> Vec<String> {
        self.catch_up();
        let complaints = self.events.iter().filter(|event| {
            let its = &event["params"];
            match event["method"].as_str().unwrap_or_default() {
                "Runtime.exceptionThrown" | "Network.loadingFailed" => true,
                "Runtime.consoleAPICalled" => {
                    ["error", "warning", "assert"].contains(&its["type"].as_str().unwrap_or(""))
                }
                "Log.entryAdded" => {
                    let level = its["entry"]["level"].as_str().unwrap_or_default();
                    ["error", "warning"].contains(&level)
                }
                _ => false,
            }
        });
        complaints.map(Value::to_string).collect()
    }

    /// All addresses that the page has asked for since it was opened.
    pub(crate) fn requests(&mut self) -> Vec<String> {
        self.catch_up();
        let requests = self
            .events
            .iter()
            .filter(|event| event["method"] == "Network.requestWillBeSent");
        requests
            .filter_map(|event| event["params"]["request"]["url"].as_str())
            .map(str::to_owned)
            .collect()
    }

    /// Takes in what the browser has said up to now: events come before the answer to a later command.
    fn catch_up(&mut self) {
        self.command("Runtime.evaluate", &json!({"expression": "0"}));
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // It may have ended by itself. Its helpers end with it.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.profile);
    }
}
