//! `fairlead demo`, as a newcomer runs it.

use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
};

use super::support::world::FAIRLEAD;

fn start() -> Child {
    let mut demo = Command::new(FAIRLEAD);
    demo.arg("demo").stdout(Stdio::piped()).stderr(Stdio::piped());
    demo.spawn().expect("the binary starts")
}

#[test]
fn the_demo_shows_everything_working_and_leaves_nothing() {
    let child = start();
    let pid = child.id();
    let output = child.wait_with_output().expect("it ran");
    let (text, errors) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{text}\n{errors}");
    assert!(!text.contains("FAILED"), "{text}");
    assert!(!text.contains('\x1b') && !text.contains('\r'), "plain text off a terminal: {text}");
    let (_, table) = text.split_once("What was expected and what was seen").expect("a table");
    for expected in [
        "hello, asked by a pod",
        "connections to http://hello are spread",
        "NodePort from outside, UDP, IPv6",
        "localhost:30080 on the node, TCP, ::1",
        "TCP to a Service without pods",
        "https://hello.example.com, IPv4, certificate verified",
        "scaled from 3 to 5 pods",
        "rolling update of 5 pods, https",
        "kill -9 and start again",
        "50 open connections, NodePort",
    ] {
        assert!(table.contains(expected), "{expected} is not in the table: {table}");
    }
    let root = std::env::temp_dir().join(format!("fairlead-{pid}"));
    assert!(!root.exists(), "{} stayed", root.display());
}

#[test]
fn without_rights_the_demo_says_so_in_one_line() {
    let output = Command::new("setpriv")
        .args(["--bounding-set=-all", "--inh-caps=-all", FAIRLEAD, "demo"])
        .output()
        .expect("setpriv starts");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{errors}");
    assert_eq!(errors.lines().count(), 1, "{errors}");
    assert!(errors.contains("root"), "{errors}");
}

#[test]
fn interrupted_the_demo_leaves_nothing() {
    let mut child = start();
    let pid = child.id();
    let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
    // In the middle of it: pods, agent and clients run.
    let begun = |line: &Result<String, _>| line.as_ref().is_ok_and(|line| line == "Services");
    assert!(lines.any(|line| begun(&line)), "it never came to the Services");
    let target = nix::unistd::Pid::from_raw(i32::try_from(pid).expect("a pid"));
    nix::sys::signal::kill(target, nix::sys::signal::Signal::SIGINT).expect("it runs");
    let rest: Vec<String> = lines.map_while(Result::ok).collect();
    let output = child.wait_with_output().expect("it ran");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{rest:?}\n{errors}");
    assert!(errors.contains("interrupted"), "{errors}");
    for left in [format!("fairlead-{pid}"), format!("fairlead-logs-{pid}")] {
        let path = std::env::temp_dir().join(left);
        assert!(!path.exists(), "{} stayed", path.display());
    }
}
