//! A real browser at a place of the world, driven by the W3C's WebDriver protocol.

use std::{
    io::{BufRead, BufReader},
    net::Ipv4Addr,
    path::Path,
    process::{Child, Stdio},
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    runtime::Runtime,
    time::timeout,
};

use super::world::World;

/// Starting Chromium on a busy machine takes seconds.
const PATIENCE: Duration = Duration::from_secs(60);
/// Longest wait for something to show up on a page.
const SHOWN_MS_MAX: u64 = 30_000;

/// Chromium without a screen. Closed when dropped.
pub(crate) struct Browser {
    /// Its sockets are opened at the browser's place.
    runtime: Runtime,
    driver: Child,
    port: u16,
    session: String,
    _profile: tempfile::TempDir,
}

/// How a page is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Look {
    Light,
    Dark,
    /// A phone's screen, dark.
    Phone,
}

impl Browser {
    /// Starts one on the world's node.
    pub(crate) fn on_node(world: &World) -> Self {
        let mut command = world.command("node", "chromedriver");
        command.args(["--port=0", "--log-level=WARNING"]);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut driver = command.spawn().expect("the binary starts");
        let stdout = BufReader::new(driver.stdout.take().expect("piped"));
        let mut lines = stdout.lines().map_while(Result::ok);
        let line = lines.find(|line| line.contains("started successfully on port"));
        // It would end when it cannot say more.
        std::thread::spawn(move || lines.for_each(drop));
        let line = line.expect("chromedriver runs: `make test` installs chromium-driver");
        let digits = line.rsplit(' ').next().unwrap_or_default().trim_end_matches('.');
        let port = digits.parse().expect("a port");
        let profile = tempfile::tempdir().expect("a directory");
        let (runtime, session) = (world.runtime("node"), String::new());
        let mut browser = Self { runtime, driver, port, session, _profile: profile };
        browser.begin();
        browser
    }

    fn begin(&mut self) {
        let profile = format!("--user-data-dir={}", self._profile.path().display());
        // Root has no sandbox, and a small machine no large /dev/shm.
        let args = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"];
        let args: Vec<&str> = args.into_iter().chain(["--hide-scrollbars", &profile]).collect();
        let wishes = json!({"capabilities": {"alwaysMatch": {
            "goog:chromeOptions": {"args": args},
            "goog:loggingPrefs": {"browser": "ALL"},
            "timeouts": {"script": SHOWN_MS_MAX},
        }}});
        let begun = self.call("POST", "/session", &wishes);
        self.session = begun["sessionId"].as_str().expect("a session").to_owned();
    }

    /// One command; its value.
    fn call(&self, method: &str, path: &str, body: &Value) -> Value {
        let path = match path.strip_prefix('~') {
            Some(rest) => format!("/session/{}{rest}", self.session),
            None => path.to_owned(),
        };
        let body = if method == "POST" { body.to_string() } else { String::new() };
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        );
        let port = self.port;
        let asking = async move {
            let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
            stream.write_all(request.as_bytes()).await?;
            read_body(&mut stream).await
        };
        // Spawned: this thread is somewhere else.
        let asking = self.runtime.spawn(async { timeout(PATIENCE, asking).await });
        let answer = self.runtime.block_on(asking).expect("no panic");
        let answer = answer.expect("an answer in time").expect("chromedriver answers");
        let answer: Value = serde_json::from_slice(&answer).expect("JSON");
        let value = &answer["value"];
        assert!(value["error"].is_null(), "{method} {path}: {value:#}");
        value.clone()
    }

    /// Goes to a page and waits until all of it is loaded.
    pub(crate) fn open(&self, url: &str) {
        self.call("POST", "~/url", &json!({ "url": url }));
    }

    /// What a script returns.
    pub(crate) fn run(&self, script: &str) -> Value {
        self.call("POST", "~/execute/sync", &json!({ "script": script, "args": [] }))
    }

    /// What a script gives to `done`.
    pub(crate) fn run_until_done(&self, script: &str) -> Value {
        let script = format!("const done = arguments[arguments.length - 1]; {script}");
        self.call("POST", "~/execute/async", &json!({ "script": script, "args": [] }))
    }

    /// Waits until a condition holds, looking at each change of the page.
    pub(crate) fn await_true(&self, condition: &str) {
        self.run_until_done(&format!(
            "const check = () => Boolean({condition});
             if (check()) return done(true);
             const seen = new MutationObserver(() => {{
               if (check()) {{ seen.disconnect(); done(true); }}
             }});
             seen.observe(document.documentElement,
               {{ subtree: true, childList: true, characterData: true, attributes: true }});"
        ));
    }

    /// All text of the page.
    pub(crate) fn text(&self) -> String {
        self.run("return document.body.innerText").as_str().unwrap_or_default().to_owned()
    }

    /// Complaints of the browser since the last call: errors of scripts, forbidden loads.
    pub(crate) fn complaints(&self) -> Vec<String> {
        let log = self.call("POST", "~/se/log", &json!({ "type": "browser" }));
        let lines = log.as_array().cloned().unwrap_or_default();
        let severe = lines.iter().filter(|line| line["level"] == "SEVERE");
        severe.map(|line| line["message"].to_string()).collect()
    }

    /// Looks at pages differently from now on.
    pub(crate) fn look(&self, look: Look) {
        let scheme = if look == Look::Light { "light" } else { "dark" };
        let features = json!([{ "name": "prefers-color-scheme", "value": scheme }]);
        self.devtools("Emulation.setEmulatedMedia", &json!({ "features": features }));
        let is_phone = look == Look::Phone;
        let (width, height) = if is_phone { (390, 844) } else { (1280, 800) };
        let metrics =
            json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": is_phone });
        self.devtools("Emulation.setDeviceMetricsOverride", &metrics);
    }

    fn devtools(&self, command: &str, params: &Value) {
        self.call("POST", "~/goog/cdp/execute", &json!({ "cmd": command, "params": params }));
    }

    /// What is seen, as PNG.
    pub(crate) fn screenshot(&self) -> Vec<u8> {
        let encoded = self.call("GET", "~/screenshot", &Value::Null);
        STANDARD.decode(encoded.as_str().expect("text")).expect("base64")
    }

    /// Keeps what is seen, where pictures of the documentation are wanted.
    pub(crate) fn keep(&self, name: &str) {
        let picture = self.screenshot();
        assert!(picture.starts_with(b"\x89PNG"), "a picture");
        if let Some(folder) = std::env::var_os("FAIRLEAD_PICTURES") {
            let folder = Path::new(&folder);
            std::fs::create_dir_all(folder).expect("writable");
            std::fs::write(folder.join(name), picture).expect("writable");
        }
    }
}

async fn read_body(stream: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    let mut answer = Vec::new();
    loop {
        let head = answer.windows(4).position(|four| four == b"\r\n\r\n");
        if let Some(end) = head {
            let text = String::from_utf8_lossy(&answer[..end]).to_ascii_lowercase();
            let mut fields = text.lines().filter_map(|line| line.split_once(':'));
            let length = fields.find(|(name, _)| *name == "content-length");
            let length: usize = length.and_then(|(_, n)| n.trim().parse().ok()).unwrap_or_default();
            let body = &answer[end + 4..];
            if body.len() >= length {
                return Ok(body.to_vec());
            }
        }
        if stream.read_buf(&mut answer).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Its browser goes with the session; after a failure there may be none.
        if !self.session.is_empty() && !std::thread::panicking() {
            self.call("DELETE", "~", &Value::Null);
        }
        drop(self.driver.kill());
        drop(self.driver.wait());
    }
}
