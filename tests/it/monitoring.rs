//! Alerts and the dashboard: by promtool, and by a real Prometheus that reads a real agent.

use std::{
    collections::BTreeSet,
    fs,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use serde_json::Value;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use super::support::world::{PROBE, World};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
const FILES: &str = "deploy/helm/fairlead/files";
/// Where `make test` leaves Prometheus's programs.
const TOOLS: &str = "target/tools";
const PATIENCE: Duration = Duration::from_secs(60);

fn at(path: &str) -> PathBuf {
    Path::new(ROOT).join(path)
}

fn read(path: &str) -> String {
    fs::read_to_string(at(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn tool(name: &str) -> PathBuf {
    let path = at(TOOLS).join(name);
    assert!(path.exists(), "{}: `make test` fetches it", path.display());
    path
}

/// Every query of rules and dashboard.
fn queries() -> Vec<String> {
    let rules: Value =
        serde_saphyr::from_str(&read(&format!("{FILES}/alerts.yaml"))).expect("YAML");
    let board: Value =
        serde_json::from_str(&read(&format!("{FILES}/dashboard.json"))).expect("JSON");
    let mut found = Vec::new();
    gather(&rules, &mut found);
    gather(&board, &mut found);
    let for_all = |query: String| {
        query.replace("$__rate_interval", "1m").replace("$instance", ".*").trim().to_owned()
    };
    found.into_iter().map(for_all).collect()
}

fn gather(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            found.extend(fields.get("expr").and_then(Value::as_str).map(str::to_owned));
            fields.values().for_each(|value| gather(value, found));
        }
        Value::Array(items) => items.iter().for_each(|item| gather(item, found)),
        _ => {}
    }
}

/// Names of metrics in a text.
fn names(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let ours = |word: &&str| {
        let first = ["fairlead_", "coredns_", "kubeproxy_"];
        first.iter().any(|first| word.starts_with(first)) && !word.ends_with('_')
    };
    words.filter(ours).map(str::to_owned).collect()
}

#[test]
fn each_alert_fires_where_it_should_and_nowhere_else() {
    let folder = tempfile::tempdir().expect("a directory");
    let rules = read(&format!("{FILES}/alerts.yaml"));
    let tests = read("tests/fixtures/alerts.test.yaml");
    fs::write(folder.path().join("alerts.yaml"), &rules).expect("writable");
    fs::write(folder.path().join("tests.yaml"), &tests).expect("writable");
    for args in [["check", "rules", "alerts.yaml"], ["test", "rules", "tests.yaml"]] {
        let output = Command::new(tool("promtool")).args(args).current_dir(&folder).output();
        let output = output.expect("it starts");
        let said =
            String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{args:?}: {said}");
    }
    let named = |text: &str, field: &str| -> BTreeSet<String> {
        let lines = text.lines().filter_map(|line| line.trim().split_once(field));
        lines.map(|(_, name)| name.trim().to_owned()).collect()
    };
    assert_eq!(named(&rules, "- alert:"), named(&tests, "alertname:"), "each has a test");
}

/// A Prometheus on the world's node that reads the agent there, with labels as Prometheus Operator gives targets.
struct Prometheus {
    process: Child,
    _data: tempfile::TempDir,
}

impl Prometheus {
    fn start(world: &World) -> Self {
        let data = tempfile::tempdir().expect("a directory");
        let config = data.path().join("prometheus.yaml");
        let text = format!(
            "global: {{scrape_interval: 1s, evaluation_interval: 1s}}\nrule_files: [{}]\n\
             scrape_configs: [{{job_name: fairlead, honor_labels: true, static_configs: [{{\
             targets: ['127.0.0.1:10249'], labels: {{namespace: kube-system, service: fairlead}}}}]}}]\n",
            at(FILES).join("alerts.yaml").display()
        );
        fs::write(&config, text).expect("writable");
        let mut command = world.command("node", &tool("prometheus").display().to_string());
        command.arg(format!("--config.file={}", config.display()));
        command.arg(format!("--storage.tsdb.path={}", data.path().join("data").display()));
        command.args(["--web.listen-address=127.0.0.1:9090", "--log.level=error"]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Self { process: command.spawn().expect("the binary starts"), _data: data }
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

/// A page's body. HTTP/1.0: it ends with its connection.
async fn get(port: u16, path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
    let request = format!("GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default())
}

#[test]
fn what_rules_and_dashboard_ask_for_is_what_agents_tell() {
    let world = World::with_pods(2);
    let agent = world.agent_with(&["--count-bytes"]);
    agent.await_ready(&world);
    let runtime = world.runtime("node");
    let prometheus = Prometheus::start(&world);
    let page = |port: u16, path: &str| {
        let path = path.to_owned();
        // Spawned: this thread is somewhere else.
        let asking = runtime.spawn(async move { get(port, &path).await.unwrap_or_default() });
        runtime.block_on(asking).expect("no panic")
    };
    // Something of each kind has to have happened before it is counted.
    let pairs: [(&str, &[&str]); 5] = [
        ("node", &["--url", "http://10.96.0.20", "--count", "20"]),
        ("node", &["--url", "http://10.96.0.30", "--count", "3"]),
        ("node", &["--url", "dns://127.0.0.1/hello.default.svc.cluster.local", "--count", "5"]),
        ("client", &["--url", "http://192.168.77.2/", "--count", "5"]),
        (PROBE, &["--url", "http://10.96.0.20", "--count", "5"]),
    ];
    let traffic = || {
        for (place, args) in pairs {
            world.load(place, args);
        }
    };
    traffic();
    let metrics = page(10249, "/metrics");
    let told = names(&metrics);
    for map in
        ["frontends", "backends", "maglev", "source-ranges", "counters", "refusals", "connections"]
    {
        for name in ["fairlead_map_entries", "fairlead_map_entries_max"] {
            assert!(metrics.contains(&format!("{name}{{map=\"{map}\"}} ")), "{name} of {map}");
        }
    }
    let labels = |service: &str| format!("namespace=\"default\",service=\"{service}\"");
    for series in [
        format!("connections_total{{{}}} ", labels("hello")),
        format!("rejected_total{{{},reason=\"no_backends\"}} ", labels("empty")),
        format!("socket_bytes_total{{{},direction=\"to_service\"}} ", labels("hello")),
        format!("socket_bytes_total{{{},direction=\"from_service\"}} ", labels("hello")),
    ] {
        assert!(metrics.contains(&format!("fairlead_service_{series}")), "{series}:\n{metrics}");
    }
    let queries = queries();
    let asked: BTreeSet<String> = queries.iter().flat_map(|query| names(query)).collect();
    let reference = read("docs/reference/metrics.md");
    let explained = names(&(read("docs/monitoring.md") + &reference));
    let asked: BTreeSet<String> = asked.union(&explained).cloned().collect();
    let missing: Vec<&String> = asked.difference(&told).collect();
    assert!(missing.is_empty(), "asked for and never told: {missing:?}\n{told:?}");
    let of_type = |line: &str| line.strip_prefix("# TYPE ")?.split(' ').next().map(str::to_owned);
    let kinds: Vec<String> = metrics.lines().filter_map(of_type).collect();
    assert!(kinds.len() > 80, "{kinds:?}");
    let silent: Vec<&String> =
        kinds.iter().filter(|name| !reference.contains(&format!("`{name}`"))).collect();
    assert!(silent.is_empty(), "told, and not in docs/reference/metrics.md: {silent:?}");

    let query = |text: &str| -> Value {
        let form: String =
            form_urlencoded::Serializer::new(String::new()).append_pair("query", text).finish();
        serde_json::from_str(&page(9090, &format!("/api/v1/query?{form}"))).unwrap_or_default()
    };
    let deadline = Instant::now() + PATIENCE;
    let rate = "sum(rate(fairlead_service_connections_total[1m]))";
    while query(rate)["data"]["result"][0]["value"][1].as_str().is_none_or(|rate| rate == "0") {
        assert!(Instant::now() < deadline, "Prometheus reads nothing: {}", query(rate));
        traffic();
    }
    for text in queries {
        let answer = query(&text);
        assert_eq!(answer["status"], "success", "{text}: {answer}");
    }
    // Not of whom the target is: with honorLabels, as docs/monitoring.md has it.
    let of_service = "fairlead_service_connections_total{namespace=\"default\",service=\"hello\"}";
    let of_service = query(of_service);
    assert_ne!(of_service["data"]["result"], serde_json::json!([]), "{of_service}");
    assert!(read("docs/monitoring.md").contains("honorLabels: true"));
    let up = query("fairlead_role_ready == 1");
    assert_eq!(up["data"]["result"].as_array().map(Vec::len), Some(3), "{up}");
    let alerts: Value = serde_json::from_str(&page(9090, "/api/v1/alerts")).expect("JSON");
    let firing: Vec<&Value> = alerts["data"]["alerts"]
        .as_array()
        .map(|all| all.iter().filter(|alert| alert["state"] == "firing").collect())
        .unwrap_or_default();
    assert!(firing.is_empty(), "a healthy node alarms nobody: {firing:?}");
    drop(prometheus);
}
