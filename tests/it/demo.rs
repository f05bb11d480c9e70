//! `fairlead demo`, as a newcomer runs it.

use std::process::Command;

use super::support::world::FAIRLEAD;

#[test]
fn the_demo_shows_everything_working_and_leaves_nothing() {
    let child = Command::new(FAIRLEAD)
        .arg("demo")
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .expect("the binary starts");
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
