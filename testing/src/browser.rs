//! A real browser: Chromium without a window, driven over the WebDriver protocol, which is JSON over HTTP.

use std::{
    collections::BTreeSet,
    path::PathBuf,
    process::Stdio,
    time::{Duration, Instant},
};

use base64::{Engine, prelude::BASE64_STANDARD};
use reqwest::{Method, Url};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::{Child, Command};

use crate::{
    root,
    server::{free_port, scratch},
    wait_until,
};

/// How WebDriver names an element in JSON.
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";
/// Checks pages for what keeps people out of them.
const AXE: &str = ".dev/tools/axe-core/node_modules/axe-core/axe.min.js";
/// What it finds serious or critical: the rule, and where.
const BARRIERS: &str = "return axe.run(document, { resultTypes: ['violations'] }).then(({ violations }) => violations
    .filter(({ impact }) => ['serious', 'critical'].includes(impact))
    .map(({ id, nodes }) => [id, ...nodes.map(({ target, failureSummary }) => `${target}: ${failureSummary}`)]))";
/// What reaches beyond the window's right side, where somebody would have to scroll sideways.
const TOO_WIDE: &str = "const { scrollWidth, clientWidth } = document.scrollingElement;
    const isWide = (one) => one.getBoundingClientRect().right > clientWidth;
    const wide = [...document.body.querySelectorAll('*')].filter(isWide).map((one) => one.outerHTML.slice(0, 100));
    return scrollWidth > clientWidth ? [scrollWidth, ...wide] : []";
const START_WITHIN: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub struct Browser {
    http: reqwest::Client,
    /// The address of the session, which all commands begin with.
    session: String,
    /// Chromium ends with it: they are joined by a pipe.
    _driver: Child,
    _profile: TempDir,
}

impl Browser {
    /// With a fresh profile.
    ///
    /// # Panics
    /// There is no Chromium, or no driver for it.
    pub async fn start() -> Self {
        let (port, profile) = (free_port(), scratch());
        let driver = Command::new("chromedriver")
            .arg(format!("--port={port}"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .expect("chromedriver is there: dev/provide test brings it");
        let http = reqwest::Client::builder().timeout(START_WITHIN).build().unwrap();
        let server = format!("http://127.0.0.1:{port}");
        wait_until("the driver listens", START_WITHIN, async || {
            http.get(format!("{server}/status")).send().await.is_ok()
        })
        .await;
        let arguments = [
            "--headless=new",
            // The tests may run as root, where Chromium's sandbox does not work, and where /dev/shm is small.
            "--no-sandbox",
            "--disable-dev-shm-usage",
            "--disable-gpu",
            "--remote-debugging-pipe",
            "--lang=en-GB",
            &format!("--user-data-dir={}", profile.path().display()),
        ];
        let wanted = json!({"capabilities": {"alwaysMatch": {
            "browserName": "chrome",
            "goog:chromeOptions": {"args": arguments},
            "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"},
        }}});
        let begun = http.post(format!("{server}/session")).json(&wanted).send().await.unwrap();
        let begun: Value = begun.json().await.unwrap();
        let id = begun["value"]["sessionId"].as_str().unwrap_or_else(|| panic!("no session: {begun}"));
        Self { session: format!("{server}/session/{id}"), http, _driver: driver, _profile: profile }
    }

    /// The answer to a command of the protocol, or its error.
    async fn attempt(&self, method: Method, command: &str, body: Value) -> Result<Value, Value> {
        let request = self.http.request(method.clone(), format!("{}{command}", self.session));
        let request = if method == Method::POST { request.json(&body) } else { request };
        let answer: Value = request.send().await.unwrap().json().await.unwrap();
        let value = answer["value"].clone();
        if value["error"].is_string() { Err(value) } else { Ok(value) }
    }

    async fn command(&self, method: Method, command: &str, body: Value) -> Value {
        let answer = self.attempt(method, command, body).await;
        answer.unwrap_or_else(|error| panic!("{command}: {} {}", error["error"], error["message"]))
    }

    pub async fn open(&self, url: &str) {
        self.command(Method::POST, "/url", json!({ "url": url })).await;
    }

    pub async fn reload(&self) {
        self.command(Method::POST, "/refresh", json!({})).await;
    }

    pub async fn url(&self) -> Url {
        self.command(Method::GET, "/url", Value::Null).await.as_str().unwrap().parse().unwrap()
    }

    /// What a script returns.
    pub async fn script(&self, script: &str) -> Value {
        self.command(Method::POST, "/execute/sync", json!({ "script": script, "args": [] })).await
    }

    /// The text of an element as it is seen; empty where it is not.
    pub async fn text(&self, selector: &str) -> String {
        let Some(element) = self.find(selector).await else { return String::new() };
        let text = self.attempt(Method::GET, &format!("/element/{element}/text"), Value::Null).await;
        text.ok().and_then(|text| text.as_str().map(str::to_owned)).unwrap_or_default()
    }

    /// Waits until the text of an element is as it should be, and tells how long that took.
    ///
    /// # Panics
    /// It is not within `limit`.
    pub async fn shows(&self, selector: &str, limit: Duration, is_right: impl Fn(&str) -> bool) -> Duration {
        let begin = Instant::now();
        loop {
            let text = self.text(selector).await;
            if is_right(&text) {
                return begin.elapsed();
            }
            assert!(
                begin.elapsed() < limit,
                "not within {limit:?}: {selector} shows {text:?}; {:?}",
                self.console().await
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn find(&self, selector: &str) -> Option<String> {
        let wanted = json!({ "using": "css selector", "value": selector });
        let found = self.attempt(Method::POST, "/element", wanted).await.ok()?;
        found[ELEMENT].as_str().map(str::to_owned)
    }

    /// Presses an element as a person does: it has to be there and to be seen.
    ///
    /// # Panics
    /// It cannot be pressed within 10 s.
    pub async fn click(&self, selector: &str) {
        wait_until(&format!("{selector} can be pressed"), Duration::from_secs(10), async || {
            let Some(element) = self.find(selector).await else { return false };
            self.attempt(Method::POST, &format!("/element/{element}/click"), json!({})).await.is_ok()
        })
        .await;
    }

    /// Types into an element.
    ///
    /// # Panics
    /// It is not there.
    pub async fn enter(&self, selector: &str, text: &str) {
        let element = self.find(selector).await.unwrap_or_else(|| panic!("no {selector}"));
        self.command(Method::POST, &format!("/element/{element}/value"), json!({ "text": text })).await;
    }

    /// Presses keys, one after the other, wherever the focus is.
    pub async fn press(&self, keys: &[&str]) {
        let actions = keys.iter().flat_map(|key| ["keyDown", "keyUp"].map(|kind| json!({"type": kind, "value": key})));
        let actions = json!({"actions": [{"type": "key", "id": "keys", "actions": actions.collect::<Vec<_>>()}]});
        self.command(Method::POST, "/actions", actions).await;
    }

    /// From now on the window has this size, in CSS pixels, and its reader prefers `theme`: `light` or `dark`.
    async fn view(&self, width: u32, height: u32, theme: &str) {
        let size = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": false });
        let theme = json!({ "features": [{ "name": "prefers-color-scheme", "value": theme }] });
        for (name, parameters) in [("setDeviceMetricsOverride", size), ("setEmulatedMedia", theme)] {
            let command = json!({ "cmd": format!("Emulation.{name}"), "params": parameters });
            self.command(Method::POST, "/goog/cdp/execute", command).await;
        }
    }

    /// Whoever sees little, no colours, or works with keys alone can use what the window shows, in two widths and two
    /// themes: axe-core finds nothing serious, and nothing has to be scrolled sideways. Pictures of each are in
    /// `target/pages`.
    ///
    /// # Panics
    /// It does.
    pub async fn is_for_everybody(&self, name: &str) {
        let axe = std::fs::read_to_string(root().join(AXE)).expect("axe-core is there: dev/provide test brings it");
        self.script(&axe).await;
        for (width, height) in [(1280, 900), (360, 900)] {
            for theme in ["light", "dark"] {
                self.view(width, height, theme).await;
                self.picture(&format!("{name}-{width}-{theme}")).await;
                let wide = self.script(TOO_WIDE).await;
                assert_eq!(wide, json!([]), "{name}, {width} px, {theme}: {wide:#}");
                let barriers = self.script(BARRIERS).await;
                assert_eq!(barriers, json!([]), "{name}, {width} px, {theme}: {barriers:#}");
            }
        }
        self.view(1280, 900, "light").await;
    }

    /// Presses the tab key until the focus is on an element of which this expression over `it` is true.
    ///
    /// # Panics
    /// It is not after a hundred times.
    pub async fn tab_to(&self, is_right: &str) {
        let focused = format!("const it = document.activeElement; return Boolean({is_right})");
        for _ in 0..100 {
            self.press(&["\u{e004}"]).await;
            if self.script(&focused).await == true {
                return;
            }
        }
        panic!("no tab leads to {is_right}");
    }

    async fn picture(&self, name: &str) {
        let picture = self.command(Method::GET, "/screenshot", Value::Null).await;
        let folder = folder();
        std::fs::create_dir_all(&folder).unwrap();
        let bytes = BASE64_STANDARD.decode(picture.as_str().unwrap()).unwrap();
        std::fs::write(folder.join(format!("{name}.png")), bytes).unwrap();
    }

    /// What the console has told since it was last asked.
    pub async fn console(&self) -> Vec<String> {
        let lines = self.command(Method::POST, "/se/log", json!({ "type": "browser" })).await;
        lines.as_array().unwrap().iter().map(|line| line["message"].as_str().unwrap().to_owned()).collect()
    }

    /// The origins that were asked for anything since this was last asked, but for pages of the browser itself.
    pub async fn origins(&self) -> BTreeSet<String> {
        let lines = self.command(Method::POST, "/se/log", json!({ "type": "performance" })).await;
        let asked = |line: &Value| {
            let event: Value = serde_json::from_str(line["message"].as_str()?).ok()?;
            let event = &event["message"];
            let is_request = event["method"] == "Network.requestWillBeSent";
            let url = is_request.then(|| event["params"]["request"]["url"].as_str())??;
            Some(url.parse::<Url>().ok()?.origin())
                .filter(|origin| origin.is_tuple())
                .map(|origin| origin.ascii_serialization())
        };
        lines.as_array().unwrap().iter().filter_map(asked).collect()
    }

    /// Ends it in order.
    pub async fn close(self) {
        self.command(Method::DELETE, "", Value::Null).await;
    }
}

fn folder() -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from);
    target.join("pages")
}
