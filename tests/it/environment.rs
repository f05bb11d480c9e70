//! The command line wins over the environment, of flags that exclude each other, too.

use std::{path::Path, process::Command};

use super::support::world::FAIRLEAD;

const OBJECTS: &str = "apiVersion: v1\nkind: Service\nmetadata: {name: web, namespace: shop}\n\
                       spec: {clusterIP: 10.96.0.9, ports: [{name: http, port: 80}]}\n";
const REFUSED: &str = "cannot be used with";

/// What a command is given, how it ends and what it says.
struct Case {
    words: &'static str,
    variables: &'static [(&'static str, &'static str)],
    status: i32,
    said: &'static str,
}

const fn case(
    words: &'static str,
    variables: &'static [(&'static str, &'static str)],
    status: i32,
    said: &'static str,
) -> Case {
    Case { words, variables, status, said }
}

/// Two settings that name one port: the words before have been taken.
const ENDS: &str = "one port";

/// ROOT is a directory with objects.yaml and nothing else.
const CASES: &[Case] = &[
    // A flag here, a variable there.
    case("check -f ROOT/objects.yaml", &[("FAIRLEAD_KUBECONFIG", "/nowhere")], 0, "works 1,"),
    case("check --kubeconfig /nowhere", &[("FAIRLEAD_FILENAME", "ROOT")], 64, "/nowhere"),
    case(
        "trace --live --admin-socket ROOT/none.sock",
        &[("FAIRLEAD_FILENAME", "ROOT/objects.yaml")],
        1,
        "none.sock",
    ),
    case(
        "trace -f ROOT/objects.yaml tcp web.shop:80",
        &[("FAIRLEAD_LIVE", "true")],
        1,
        "the Service has no endpoints",
    ),
    case(
        "agent --manifests ROOT --metrics-listen 127.0.0.1:9 --healthz-listen 127.0.0.1:9",
        &[("FAIRLEAD_KUBECONFIG", "/nowhere")],
        64,
        ENDS,
    ),
    case(
        "agent --kubeconfig /nowhere --metrics-listen 127.0.0.1:9 --healthz-listen 127.0.0.1:9",
        &[("FAIRLEAD_MANIFESTS", "ROOT")],
        64,
        ENDS,
    ),
    case(
        "agent --publish-address 192.0.2.1 --metrics-listen 127.0.0.1:9 --healthz-listen 127.0.0.1:9",
        &[("FAIRLEAD_PUBLISH_SERVICE", "a/b")],
        64,
        ENDS,
    ),
    case(
        "cleanup --drain 1 --bpffs ROOT",
        &[("FAIRLEAD_KUBE_PROXY", "true")],
        0,
        "nothing of Fairlead's is here",
    ),
    case("man ROOT/man", &[("FAIRLEAD_MARKDOWN", "true")], 0, ""),
    // What gives way need not even be right.
    case(
        "agent --manifests ROOT --metrics-listen 127.0.0.1:9 --healthz-listen 127.0.0.1:9",
        &[("FAIRLEAD_KUBECONFIG", "")],
        64,
        ENDS,
    ),
    // Help is not refused.
    case(
        "check --help",
        &[("FAIRLEAD_KUBECONFIG", "/nowhere"), ("FAIRLEAD_FILENAME", "ROOT")],
        0,
        "Usage",
    ),
    // Both here, or both there: nobody knows which.
    case("check -f ROOT --kubeconfig /nowhere", &[], 2, REFUSED),
    case("trace --live -f ROOT", &[], 2, REFUSED),
    case("agent --manifests ROOT --kubeconfig /nowhere", &[], 2, REFUSED),
    case(
        "check",
        &[("FAIRLEAD_KUBECONFIG", "/nowhere"), ("FAIRLEAD_FILENAME", "ROOT")],
        2,
        REFUSED,
    ),
];

fn run(case: &Case, root: &Path) -> (Option<i32>, String) {
    let root = root.display().to_string();
    let mut command = Command::new(FAIRLEAD);
    command.args(case.words.replace("ROOT", &root).split(' '));
    for (name, value) in case.variables {
        command.env(name, value.replace("ROOT", &root));
    }
    let output = command.output().expect("it starts");
    let said = [&output.stdout, &output.stderr].map(|said| String::from_utf8_lossy(said));
    (output.status.code(), said.concat())
}

#[test]
fn a_variable_gives_way_to_a_flag_that_excludes_its_own() {
    for case in CASES {
        let folder = tempfile::tempdir().expect("a directory");
        std::fs::write(folder.path().join("objects.yaml"), OBJECTS).expect("writable");
        let Case { words, variables, status, said } = case;
        let (ended, text) = run(case, folder.path());
        assert_eq!(ended, Some(*status), "{variables:?} fairlead {words}: {text}");
        assert!(text.contains(said), "{variables:?} fairlead {words}: {text}");
    }
}
