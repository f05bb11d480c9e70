//! The place in which the documentation's commands are run.

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::{Path, PathBuf},
    process::{Command as Process, Output, Stdio},
};

use super::{ROOT, blocks::Command, read};
use crate::support::{
    agent::Agent,
    manifests::kube_proxy_config_map,
    world::{FAIRLEAD, World},
};

/// What stands for a thing of the reader's, and the thing in the room where commands are run.
const STANDS_FOR: [(&str, &str); 5] = [
    ("--manifests DIR", "--manifests docs/examples"),
    ("--kubeconfig FILE", "--kubeconfig kubeconfig"),
    ("--config FILE", "--config agent.yaml"),
    ("-f FILE...", "-f docs/examples/shop.yaml"),
    ("/usr/local/share/man/man1", "man1"),
];

/// Commands that end otherwise than with 0.
const STATUS: [(&str, &[i32]); 5] = [
    ("fairlead doctor", &[0, 1]), // as the machine is
    ("fairlead names helo", &[1]),
    ("fairlead check -f shop.yaml Corefile", &[1]),
    ("fairlead trace -f manifests/", &[1]),
    ("fairlead trace -f docs/examples/shop.yaml http://shop.example/cart", &[1]),
];

/// A directory as a reader's, in which the documentation's commands work.
pub(super) struct Room {
    folder: tempfile::TempDir,
}

impl Room {
    pub(super) fn new(kubeconfig: &Path) -> Self {
        let room = Self { folder: tempfile::tempdir().expect("a directory") };
        for name in ["docs", "deploy"] {
            symlink(Path::new(ROOT).join(name), room.at(name)).expect("writable");
        }
        for name in ["bin", "manifests"] {
            fs::create_dir(room.at(name)).expect("writable");
        }
        for name in ["fairlead", "kubectl-fairlead"] {
            symlink(FAIRLEAD, room.at("bin").join(name)).expect("writable");
        }
        let shop = read(&Path::new(ROOT).join("docs/examples/shop.yaml"));
        room.write("manifests/shop.yaml", &shop);
        let old = "metadata: {name: web, namespace: shop, annotations: \
             {nginx.ingress.kubernetes.io/proxy-http-version: '1.0'}}\nspec:\n  ingressClassName";
        let plain = "metadata: {name: web, namespace: shop}\nspec:\n  ingressClassName";
        let right = shop.replace(plain, old).replace("{number: 8081}", "{number: 80}");
        assert_ne!(right, shop);
        room.write("shop.yaml", &right);
        room.write("Corefile", COREFILE);
        room.write("kube-proxy-configmap.yaml", &kube_proxy_config_map(KUBE_PROXY));
        let examples = Path::new(ROOT).join("docs/examples");
        room.write("agent.yaml", &format!("manifests: {}\n", examples.display()));
        fs::copy(kubeconfig, room.at("kubeconfig")).expect("it is there");
        room.write("bin/kubectl", &KUBECTL.replace("@ROOM@", &room.at("").display().to_string()));
        let permissions = fs::Permissions::from_mode(0o755);
        fs::set_permissions(room.at("bin/kubectl"), permissions).expect("writable");
        room
    }

    pub(super) fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.at(name), text).expect("writable");
    }

    /// A command on the node, as a shell takes it.
    pub(super) fn command(&self, world: &World, words: &str) -> Process {
        let mut words = words.to_owned();
        for (placeholder, thing) in STANDS_FOR {
            words = words.replace(placeholder, thing);
        }
        let mut process = world.command("node", "bash");
        process.args(["-euo", "pipefail", "-c", &words]).current_dir(self.folder.path());
        let path = std::env::var("PATH").unwrap_or_default();
        process.env("PATH", format!("{}:{path}", self.at("bin").display()));
        process.env("FAIRLEAD_BPFFS", world.bpffs());
        process.env("FAIRLEAD_ADMIN_SOCKET", self.at("admin.sock"));
        process.stdin(Stdio::null());
        process
    }

    pub(super) fn run(&self, world: &World, command: &Command) -> Output {
        let output = self.command(world, &command.words).output().expect("bash starts");
        let known = STATUS.iter().find(|(words, _)| command.words.starts_with(words));
        let expected = known.map_or(&[0][..], |(_, status)| *status);
        let is_expected = output.status.code().is_some_and(|code| expected.contains(&code));
        let said = [&output.stdout, &output.stderr].map(|said| String::from_utf8_lossy(said));
        assert!(
            is_expected,
            "{}: {}: {}\n{}{}",
            command.place, command.words, output.status, said[0], said[1]
        );
        output
    }

    /// An agent that is asked by the commands of this room.
    pub(super) fn agent(&self, world: &World) -> Agent {
        let socket = format!("--admin-socket={}", self.at("admin.sock").display());
        let agent = world.agent_with(&[&socket]);
        agent.await_ready(world);
        // Devices get their programs after the sockets.
        agent.await_line(&["following the node"]);
        agent
    }
}

const COREFILE: &str = ".:53 {\n    errors\n    dnssec\n    kubernetes cluster.local\n}\n";

const KUBE_PROXY: &str = "clusterCIDR: 10.244.0.0/16\nipvs: {scheduler: rr}\n";

/// Runs a plugin as kubectl does, and what is to be run in a pod here. DaemonSets must be ours.
const KUBECTL: &str = r#"#!/bin/bash
if [ "$1" = fairlead ]; then shift; exec kubectl-fairlead "$@"; fi
for word; do
  case $word in
  ds/* | daemonset/*)
    grep -qxF "  name: ${word#*/}" @ROOM@/deploy/manifests/*.yaml || { echo "there is no $word" >&2; exit 1; } ;;
  esac
done
case " $* " in
*" config view "*) exec cat @ROOM@/kubeconfig ;;
*" get pods --output jsonpath="*" --selector "*) echo fairlead-x7k2p True; exit ;;
*" exec "*" -- "*)
  until [ "$1" = -- ]; do shift; done
  shift
  exec "$@" ;;
esac
echo "kubectl $*: nobody runs this" >&2
exit 1
"#;
