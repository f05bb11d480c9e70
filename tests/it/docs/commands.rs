//! Every command of the documentation is run: here, as it stands there, or by the test that a table names.

use std::{collections::BTreeSet, path::Path, process::Command as Process};

use super::{
    ROOT,
    blocks::{Command, blocks, commands_in, spans},
    pages, read,
    room::Room,
};
use crate::support::{
    agent,
    cluster::Cluster,
    world::{FAIRLEAD, World},
};

/// A command that another test runs.
struct Elsewhere {
    /// As it begins.
    command: &'static str,
    /// The test, and what of it does it.
    file: &'static str,
    words: &'static str,
    /// Why it is not run here.
    why: &'static str,
}

const LONG: &str = "it is the test, and takes long";
const BENCH: (&str, &str) = ("tools/bench.sh", "--bench \"$1\"");
const CLUSTER: &str = "it changes a cluster: a real one is needed";

const fn elsewhere(
    command: &'static str,
    (file, words): (&'static str, &'static str),
    why: &'static str,
) -> Elsewhere {
    Elsewhere { command, file, words, why }
}

/// Everything that is not in here is run here. Blocks with `<!-- run: NAME -->` are followed by tests/cluster/scenarios/takeover.
const ELSEWHERE: &[Elsewhere] = &[
    elsewhere("git clone ", (".ci/run", "a fresh clone"), "there is no forge here"),
    elsewhere("make demo", ("tests/it/demo.rs", ".arg(\"demo\")"), "it has a test of its own"),
    elsewhere("make test", (".ci/run", "\nmake test\n"), LONG),
    elsewhere("make test-cluster", (".ci/run", "\nmake test-cluster\n"), LONG),
    elsewhere("make test-reliability", ("Makefile", "--test reliability"), LONG),
    elsewhere("make test-upgrade", ("tools/upgrade.sh", "--test upgrade"), LONG),
    elsewhere("make image", ("Makefile", "test-arm64: image"), "it takes a release build"),
    elsewhere("make test-arm64", ("Makefile", "tools/emulated.sh"), LONG),
    elsewhere("make bench-services", BENCH, LONG),
    elsewhere("make bench-dns", BENCH, LONG),
    elsewhere("make bench-ingress", BENCH, LONG),
    elsewhere("make bench-page", BENCH, LONG),
    elsewhere(
        "tools/bench.sh ",
        ("tests/it/plots.rs", "rows_are_drawn"),
        "it draws what was measured",
    ),
    elsewhere(
        "helm upgrade --install ",
        ("tests/cluster/deploy", "helm upgrade --install fairlead"),
        CLUSTER,
    ),
    elsewhere(
        "helm upgrade fairlead ",
        ("tests/cluster/scenarios/fairlead.sh", "helm upgrade fairlead"),
        CLUSTER,
    ),
    elsewhere(
        "helm rollback ",
        ("tests/cluster/scenarios/roll.d/builds.sh", "helm rollback fairlead"),
        CLUSTER,
    ),
    elsewhere("helm test ", ("tests/it/operate.rs", "what_helm_test_asks"), CLUSTER),
    elsewhere(
        "helm uninstall ",
        ("tests/cluster/scenarios/takeover", "follow back-uninstall"),
        CLUSTER,
    ),
    elsewhere(
        "kubectl apply -f deploy/manifests",
        ("deploy/test", "plain_manifests_are_what_the_chart_renders"),
        CLUSTER,
    ),
    elsewhere(
        "kubectl -n kube-system set env daemonset/fairlead-node ",
        ("deploy/test", "the_api_servers_address_reaches_the_agent"),
        CLUSTER,
    ),
    elsewhere(
        "kubectl get ingress",
        ("tests/cluster/scenarios/tutorial.d/ingress.sh", "k get ingress hello"),
        CLUSTER,
    ),
    elsewhere(
        "kubectl describe ingress",
        ("tests/cluster/scenarios/tutorial.d/ingress.sh", "events_of hello"),
        CLUSTER,
    ),
    elsewhere(
        "fairlead trace --live ",
        ("tests/it/live.rs", "\"--live\""),
        "it follows for an hour",
    ),
    elsewhere(
        "xdg-open http://127.0.0.1:10247",
        ("tests/it/page.rs", "Browser::on_node"),
        "there is no desktop",
    ),
    elsewhere(
        "kubectl -n kube-system port-forward daemonset/fairlead-",
        ("deploy/test", "have_their_pages_apart"),
        CLUSTER,
    ),
    elsewhere(
        "RUSTC_BOOTSTRAP=1 RUSTC=/usr/bin/rustc ",
        ("proxy/build.rs", "-Zbuild-std=core"),
        "each build does it",
    ),
];

fn all() -> Vec<Command> {
    let mut found = vec![];
    pages(Path::new(ROOT), &mut found);
    found.sort();
    let mut all = vec![];
    for page in found {
        let name = page.strip_prefix(ROOT).expect("below it").to_owned();
        all.extend(blocks(&name, &read(&page)).iter().flat_map(commands_in));
    }
    assert!(all.len() > 50, "{} commands", all.len());
    all
}

fn is_elsewhere(command: &Command) -> Option<&'static Elsewhere> {
    // The longest: `make test` begins `make test-cluster`, too.
    let rows = ELSEWHERE.iter().filter(|row| {
        let rest = command.words.strip_prefix(row.command);
        rest.is_some_and(|rest| row.command.ends_with([' ', '-']) || !rest.starts_with('-'))
    });
    rows.max_by_key(|row| row.command.len())
}

fn is_agent(command: &Command) -> bool {
    command.words.starts_with("fairlead agent ")
}

#[test]
fn what_is_not_run_here_is_run_where_the_table_says() {
    let mut used = BTreeSet::new();
    for command in all() {
        if let Some(mark) = &command.mark {
            let scenario = read(&Path::new(ROOT).join("tests/cluster/scenarios/takeover"));
            let followed = format!("follow {mark} ");
            assert!(scenario.contains(&followed), "{}: nobody follows it", command.place);
        } else if let Some(row) = is_elsewhere(&command) {
            used.insert(row.command);
        }
    }
    let makefile = read(&Path::new(ROOT).join("Makefile"));
    let rules = makefile.lines().filter_map(|line| line.split_once(':'));
    let targets: Vec<&str> = rules.flat_map(|(targets, _)| targets.split(' ')).collect();
    for row in ELSEWHERE {
        let Elsewhere { command, file, words, why } = row;
        assert!(used.contains(command), "{command}: no page says it any more; {why}");
        let text = read(&Path::new(ROOT).join(file));
        assert!(text.contains(*words), "{command}: {file} has no {words:?}");
        if let Some(target) = command.strip_prefix("make ") {
            assert!(targets.contains(&target), "there is no make {target}");
        }
    }
}

#[test]
fn values_that_helm_is_given_are_the_charts() {
    let schema = read(&Path::new(ROOT).join("deploy/helm/fairlead/values.schema.json"));
    let schema: serde_json::Value = serde_json::from_str(&schema).expect("JSON");
    for command in all().iter().filter(|command| command.words.contains("helm ")) {
        let given = command.words.split("--set ").skip(1).filter_map(|rest| rest.split('=').next());
        for path in given {
            let mut at = &schema;
            for key in path.split('.') {
                // A free form takes any key from here on.
                if at["properties"].is_null() {
                    break;
                }
                at = &at["properties"][key];
                assert!(at.is_object(), "{}: the chart has no {path}", command.place);
            }
        }
        let is_placed = command.words.contains("--namespace kube-system");
        assert!(is_placed, "{}: helm would look in namespace default", command.place);
    }
}

#[test]
fn commands_and_flags_named_in_passing_exist() {
    let mut found = vec![];
    pages(Path::new(ROOT), &mut found);
    let help = |words: &[&str]| {
        let output = Process::new(FAIRLEAD).args(words).arg("--help").output().expect("it starts");
        (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let mut seen = BTreeSet::new();
    for page in found {
        for span in spans(&read(&page)) {
            let Some(words) = span.strip_prefix("fairlead ") else { continue };
            let Some(name) = words.split(' ').next().filter(|name| !name.starts_with('-')) else {
                continue;
            };
            if !seen.insert(words.to_owned()) {
                continue;
            }
            let (exists, help) = help(&[name]);
            assert!(exists, "{}: `{span}`: there is no fairlead {name}", page.display());
            for flag in words.split(' ').filter(|word| word.starts_with("--") && word.len() > 2) {
                let flag = flag.split('=').next().unwrap_or_default();
                // As a word: `--for` is in `--format`, too.
                let between = |c: char| !c.is_ascii_alphanumeric() && c != '-';
                let is_known = help.split(between).any(|word| word == flag);
                assert!(is_known, "{}: `{span}`: no {flag}", page.display());
            }
        }
    }
    assert!(seen.len() > 20, "{seen:?}");
}

fn cluster(world: &World) -> Cluster {
    let service = serde_json::json!({"apiVersion": "v1", "kind": "Service",
        "metadata": {"name": "web", "namespace": "shop"},
        "spec": {"clusterIP": "10.96.0.9", "ports": [{"port": 80}]}});
    Cluster::start(world, [service])
}

#[test]
fn every_command_of_the_documentation_runs() {
    let world = World::with_pods(1);
    let cluster = cluster(&world);
    let room = Room::new(&cluster.server.kubeconfig());
    let all = all();
    let here = all.iter().filter(|command| command.mark.is_none() && command.prints.is_none());
    let here: Vec<&Command> = here.filter(|command| is_elsewhere(command).is_none()).collect();
    let mut done = BTreeSet::new();
    let (agents, rest): (Vec<&Command>, Vec<&Command>) =
        here.into_iter().partition(|command| is_agent(command));
    for command in agents {
        if !done.insert(&*command.words) {
            continue;
        }
        let mut process = room.command(&world, &format!("exec {}", command.words));
        process.env("FAIRLEAD_CGROUP_ROOT", world.cgroup());
        if !["--manifests", "--kubeconfig", "--config"]
            .iter()
            .any(|source| command.words.contains(source))
        {
            // In a pod that would be the service account.
            process.env("FAIRLEAD_KUBECONFIG", room.at("kubeconfig"));
        }
        let mut agent = agent::spawn(&mut process);
        agent.await_ready(&world);
        agent.terminate();
        assert!(agent.await_end().success(), "{}: {}", command.place, agent.log());
    }
    world.apply("shop.yaml", &read(&Path::new(ROOT).join("docs/examples/shop.yaml")));
    let mut agent = room.agent(&world);
    let (last, asked): (Vec<&Command>, Vec<&Command>) =
        rest.into_iter().partition(|command| command.words.starts_with("fairlead cleanup"));
    for command in asked {
        if done.insert(&*command.words) {
            room.run(&world, command);
        }
    }
    agent.terminate();
    assert!(agent.await_end().success(), "{}", agent.log());
    for command in last {
        if done.insert(&*command.words) {
            room.run(&world, command);
        }
    }
    assert!(done.len() > 20, "{done:?}");
    assert!(room.at("man1/fairlead-trace.1").exists(), "manual pages");
    let mut left = world.command("node", "test");
    let left = left.arg("-e").arg(world.bpffs().join("fairlead")).status().expect("test starts");
    assert_eq!(left.code(), Some(1), "nothing is left in the kernel");
}

/// With numbers of lines that tell of this very moment as `N`, and without the commit of this build.
fn settled(text: &str) -> String {
    let moments = ["snapshot ", "maps ", "programs ", "proxy ", "dns ", "ingress "];
    let mut settled = String::new();
    for line in text.lines() {
        if let Some((version, rest)) = line.split_once(" (").filter(|_| line.starts_with("node ")) {
            settled += version;
            settled += rest.split_once(')').map_or("", |(_, rest)| rest);
        } else if !moments.iter().any(|moment| line.starts_with(moment)) {
            settled += line;
        } else {
            let mut in_number = false;
            for letter in line.chars() {
                let is_part = letter.is_ascii_digit() || in_number && letter == '.';
                if !is_part {
                    settled.push(letter);
                } else if !in_number {
                    settled.push('N');
                }
                in_number = is_part;
            }
        }
        settled.push('\n');
    }
    settled
}

#[test]
fn commands_print_what_stands_below_them() {
    let world = World::with_pods(3);
    let cluster = cluster(&world);
    let room = Room::new(&cluster.server.kubeconfig());
    let _agent = room.agent(&world);
    // What the tables show has happened.
    assert_eq!(world.load("node", &["--url", "http://10.96.0.20", "--count", "60"]).ok(), 60);
    assert_eq!(world.load("node", &["--url", "http://10.96.0.30", "--count", "2"]).failed(), 2);
    let all = all();
    let shown = all.iter().filter(|command| command.prints.is_some());
    let mut wrong = String::new();
    let mut count = 0;
    for command in shown {
        let printed = room.run(&world, command);
        let printed = String::from_utf8_lossy(&printed.stdout).into_owned();
        let expected = command.prints.as_deref().unwrap_or_default();
        if settled(printed.trim_end()) != settled(expected.trim_end()) {
            wrong += &format!("{}: {}\n{printed}\n", command.place, command.words);
        }
        count += 1;
    }
    assert!(wrong.is_empty(), "these print something else:\n{wrong}");
    assert!(count > 8, "{count} commands");
}
