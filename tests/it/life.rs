//! The agent's life in a cluster: settings that change, a successor that takes over, an end that
//! nobody notices.

use std::{fs, path::Path, process::Command};

use nix::sys::signal::Signal;

use super::support::world::{FAIRLEAD, World};

const DNS_ONLY: [&str; 2] = ["--no-proxy", "--no-ingress"];
const QUESTION: &str = "dns://127.0.0.1/hello.default.svc.cluster.local";
const READY: &str = "http://127.0.0.1:10256/readyz";

/// Replaces a file in one step.
fn write(file: &Path, text: &str) {
    let unfinished = file.with_extension("new");
    fs::write(&unfinished, text).expect("writable");
    fs::rename(unfinished, file).expect("writable");
}

#[test]
fn settings_change_while_running_and_a_bad_file_changes_nothing() {
    let world = World::with_pods(1);
    let file = world.root().join("config.yaml");
    write(&file, "dns-ttl: 7\n");
    let path = file.display().to_string();
    let agent = world.agent_with(&["--no-proxy", "--no-ingress", "--config", &path]);
    agent.await_ready(&world);
    agent.await_line(&["settings:", "dns-ttl=7", "cluster-domain=cluster.local"]);

    write(&file, "dns-ttl: 8\nlog-level: debug\nlameduck: 1\n");
    agent.await_line(&["settings changed", "dns-ttl: 7 -> 8", "log-level: info -> debug"]);

    write(&file, "dns-ttl: 9\ndns-tll: 1\n");
    let refused = agent.await_line(&["ERROR", "config.yaml:2", "\"dns-ttl\"", "stay in force"]);
    assert!(refused.contains("\"dns-tll\""), "{refused}");

    write(&file, "dns-ttl: 9\ncluster-domain: other.example\n");
    agent.await_line(&["can be used again"]);
    agent.await_line(&["settings changed", "dns-ttl: 8 -> 9"]);
    agent.await_line(&["cluster-domain", "next start"]);
    assert_eq!(world.await_answer("node", QUESTION).ok(), 1, "{}", agent.log());
    assert_eq!(agent.lines_with(&["ERROR"]).len(), 1, "{}", agent.log());
}

#[test]
fn a_hangup_looks_at_files_again_and_ends_no_agent() {
    let world = World::with_pods(1);
    let file = world.root().join("config.yaml");
    write(&file, "dns-ttl: 7\n");
    // Nothing happens in the file's own directory when it is written by its name in another.
    let elsewhere = tempfile::tempdir_in(world.root()).expect("a directory");
    let other_name = elsewhere.path().join("config.yaml");
    fs::hard_link(&file, &other_name).expect("one file system");
    let path = file.display().to_string();
    let agent = world.agent_with(&["--no-proxy", "--no-ingress", "--config", &path]);
    agent.await_ready(&world);
    for (text, told) in [
        ("dns-ttl: 8\n", ["settings changed", "dns-ttl: 7 -> 8"]),
        ("dns-ttl: nine\n", ["ERROR", "stay in force"]),
        ("dns-ttl: 9\n", ["settings changed", "dns-ttl: 8 -> 9"]),
    ] {
        fs::write(&other_name, text).expect("writable");
        agent.signal(Signal::SIGHUP);
        agent.await_line(&told);
    }
    assert_eq!(world.await_answer("node", QUESTION).ok(), 1, "{}", agent.log());
}

#[test]
fn a_configuration_file_that_is_wrong_at_the_start_ends_with_64_and_names_the_line() {
    let world = World::with_pods(0);
    let file = world.root().join("config.yaml");
    let path = file.display().to_string();
    for (text, parts) in [
        (Some("# a comment\ndns-tll: 7\n"), ["config.yaml:2", "\"dns-ttl\""]),
        (Some("upstream: [nobody]\n"), ["config.yaml:1", "\"nobody\""]),
        (None, ["config.yaml", "No such file"]),
    ] {
        drop(fs::remove_file(&file));
        if let Some(text) = text {
            write(&file, text);
        }
        let mut agent = world.agent_with(&["--config", &path]);
        assert_eq!(agent.await_end().code(), Some(64), "{}", agent.log());
        let line = agent.log();
        assert!(parts.iter().all(|part| line.contains(part)), "{line}");
        assert_eq!(line.lines().count(), 1, "{line}");
    }
}

#[test]
fn a_terminated_agent_is_not_ready_at_once_and_answers_until_others_know() {
    let world = World::with_pods(1);
    let mut agent = world.agent_with(&["--no-proxy", "--no-ingress", "--lameduck", "600"]);
    agent.await_ready(&world);
    agent.terminate();
    agent.await_line(&["not ready from now on"]);
    let ready = world.load("node", &["--url", READY, "--expect", "503", "--count", "1"]);
    assert_eq!(ready.ok(), 1, "{}", agent.log());
    let answers = world.load("node", &["--url", QUESTION, "--count", "20", "--rate", "100"]);
    answers.assert_flawless("questions after SIGTERM");
    agent.terminate();
    assert!(agent.await_end().success(), "{}", agent.log());
    agent.await_line(&["ended"]);
}

#[test]
fn a_second_signal_ends_at_once() {
    let world = World::with_pods(0);
    let mut agent = world.agent_with(&["--no-proxy", "--no-ingress", "--lameduck", "600"]);
    agent.await_ready(&world);
    agent.terminate();
    agent.await_line(&["not ready from now on"]);
    agent.terminate();
    assert!(agent.await_end().success(), "{}", agent.log());
}

#[test]
fn agents_that_take_over_dns_from_one_another_lose_no_question() {
    let world = World::with_pods(1);
    let flags = [&DNS_ONLY[..], &["--healthz-listen=", "--metrics-listen=", "--lameduck", "1"]];
    let flags = flags.concat();
    let mut agent = world.agent_with(&flags);
    agent.await_line(&["names are in sync"]);
    let traffic = world.steady("node", &["--url", QUESTION, "--rate", "300"]);
    for _ in 0..4 {
        let next = world.agent_with(&flags);
        next.await_line(&["DNS: answering"]);
        agent.terminate();
        assert!(agent.await_end().success(), "{}", agent.log());
        agent = next;
    }
    traffic.stop().assert_flawless("questions while agents change");
}

#[test]
fn the_version_names_what_it_was_built_from() {
    let output = Command::new(FAIRLEAD).arg("version").output().expect("it starts");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let version = concat!("fairlead ", env!("CARGO_PKG_VERSION"), " (");
    assert!(text.starts_with(version) && text.trim_end().ends_with(')'), "{text}");
}
