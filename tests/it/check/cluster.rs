//! A live cluster in place of manifests, and the command as a plugin of kubectl.

use std::{path::Path, process::Command};

use super::{json, objects, run, write};
use crate::support::{apiserver::ApiServer, world::FAIRLEAD};

/// A kubectl that writes down what it is asked.
fn kubectl(folder: &Path, answer: &str) -> (String, std::path::PathBuf) {
    use std::os::unix::fs::{PermissionsExt as _, symlink};
    let said = folder.join("said");
    let script = format!("#!/bin/sh\nprintf '%s\\n' \"$*\" >> {}\n{answer}\n", said.display());
    write(folder, "kubectl", &script);
    let permissions = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(folder.join("kubectl"), permissions).expect("writable");
    symlink(FAIRLEAD, folder.join("kubectl-fairlead")).expect("writable");
    (folder.join("kubectl-fairlead").display().to_string(), said)
}

fn plugin(folder: &Path, program: &str, args: &[&str]) -> std::process::Output {
    let path = format!("{}:/usr/bin:/bin", folder.display());
    let mut command = Command::new(program);
    command.args(args).env("PATH", path).env("TMPDIR", folder);
    command.output().expect("it starts")
}

#[test]
fn as_a_plugin_of_kubectl_the_pod_that_knows_is_asked_with_kubectls_rights() {
    let folder = tempfile::tempdir().expect("a directory");
    let answer = "case \"$*\" in *'get pods'*) echo fairlead-x7k2p True;; \
                  *--while-input*) test -p /dev/stdin && exit 3;; *exec*) exit 3;; esac";
    let (program, said) = kubectl(folder.path(), answer);
    for (args, at, role, node, expected) in [
        (&["status"][..], "--namespace kube-system", "node", "", "-- fairlead status"),
        (
            &["--context", "prod", "--agents", "net", "trace", "http://a.example/"],
            "--context prod --namespace net",
            "ingress",
            "",
            "-- fairlead trace http://a.example/",
        ),
        // Without a terminal kubectl's end is that of the command's input.
        (
            &["trace", "--live", "-o", "json"],
            "--namespace kube-system",
            "node",
            "",
            "-- fairlead trace --live -o json --while-input",
        ),
        // The DaemonSet may be called coredns (dns.daemonSetName): it was asked for by name.
        (
            &["names", "web.shop"],
            "--namespace kube-system",
            "dns",
            "",
            "-- fairlead names web.shop",
        ),
        (
            &["--node", "n1", "names", "web.shop"],
            "--namespace kube-system",
            "dns",
            " --field-selector spec.nodeName=n1",
            "-- fairlead names web.shop",
        ),
    ] {
        let held = if expected.ends_with("--while-input") { "--stdin " } else { "" };
        let readiness = "jsonpath={range .items[*]}{.metadata.name} \
                         {.status.conditions[?(@.type==\"Ready\")].status}{\"\\n\"}{end}";
        let expected = format!(
            "{at} get pods --output {readiness} --selector \
             app.kubernetes.io/name=fairlead,app.kubernetes.io/component={role}{node}\n\
             {at} exec {held}pod/fairlead-x7k2p {expected}\n"
        );
        drop(std::fs::remove_file(&said));
        let output = plugin(folder.path(), &program, args);
        assert_eq!(output.status.code(), Some(3), "{args:?}: the command's own status");
        assert_eq!(std::fs::read_to_string(&said).expect("written"), expected, "{args:?}");
    }
    let output = plugin(folder.path(), &program, &["version"]);
    assert!(String::from_utf8_lossy(&output.stdout).starts_with("fairlead "), "no agent is asked");
}

#[test]
fn a_live_cluster_is_judged_as_its_manifests_are() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let server = runtime.block_on(ApiServer::start());
    for document in objects().split("---") {
        server.put(serde_saphyr::from_str(document).expect("YAML"));
    }
    let config = server.kubeconfig().display().to_string();
    let folder = tempfile::tempdir().expect("a directory");
    let answer = format!("cat {config}");
    let (program, said) = kubectl(folder.path(), &answer);
    let by_plugin = plugin(folder.path(), &program, &["--context", "prod", "check", "-o", "json"]);
    assert_eq!(
        std::fs::read_to_string(said).expect("written"),
        "--context prod config view --raw --minify --flatten\n"
    );
    for output in [run(&["check", "--kubeconfig", &config, "-o", "json"]), by_plugin] {
        assert_eq!(output.status.code(), Some(1), "something is refused");
        let report = json(&output).to_string();
        for part in [
            r#"{"object":"Service shop/good","reasons":[],"verdict":"works"}"#,
            "Service shop/broken",
            "ServiceCIDR wide",
            "Namespace istio-system",
            "Ingress shop/foreign",
            "Corefile of ConfigMap coredns",
            "KubeProxyConfiguration mode",
        ] {
            assert!(report.contains(part), "{part}: {report}");
        }
    }
    // Usage ends the program where it stands.
    assert!(plugin(folder.path(), &program, &["check", "--help"]).status.success());
    let left = std::fs::read_dir(folder.path()).expect("readable").count();
    assert_eq!(left, 3, "kubectl, the plugin and what was asked: no keys are left behind");
}

#[test]
fn a_cluster_that_does_not_answer_is_one_line() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let server = runtime.block_on(async { ApiServer::start_unreachable() });
    let config = server.kubeconfig().display().to_string();
    let output = run(&["check", "--kubeconfig", &config]);
    assert_eq!(output.status.code(), Some(1));
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(error.lines().count() == 1 && error.contains("127.0.0.1"), "{error}");
    let output = run(&["check"]);
    assert_eq!(output.status.code(), Some(2), "neither files nor a cluster");
}

#[test]
fn files_and_a_cluster_are_not_checked_at_once() {
    let output = run(&["check", "-f", "/nonexistent/file.yaml", "--kubeconfig", "/nonexistent"]);
    assert_eq!(output.status.code(), Some(2));
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(error.contains("--filename") && error.contains("--kubeconfig"), "{error}");
}
