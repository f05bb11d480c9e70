//! Where things of a world are: pure names and paths, known to the world's maker and to who enters
//! it.

use std::{
    convert::Infallible,
    ffi::OsStr,
    fmt,
    path::{Path, PathBuf},
    str::FromStr,
};

/// What every directory and cgroup of a world is called, followed by its maker's process id.
const PREFIX: &str = "fairlead-";
/// What every pod on another node is called, followed by what it would be called here.
const ELSEWHERE: &str = "node2-";

/// Where a process runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// On the node, in the node's cgroup.
    Node,
    /// On a machine outside of the cluster.
    Client,
    /// In a pod on the node.
    Pod(String),
    /// In a pod on another node, which is nothing but its pods' network; by its name there.
    Elsewhere(String),
}

impl FromStr for Place {
    type Err = Infallible;

    fn from_str(name: &str) -> Result<Self, Infallible> {
        Ok(match name {
            "node" => Place::Node,
            "client" => Place::Client,
            pod => match pod.strip_prefix(ELSEWHERE) {
                Some(pod) => Place::Elsewhere(pod.to_owned()),
                None => Place::Pod(pod.to_owned()),
            },
        })
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Node => f.write_str("node"),
            Place::Client => f.write_str("client"),
            Place::Pod(name) => f.write_str(name),
            Place::Elsewhere(name) => write!(f, "{ELSEWHERE}{name}"),
        }
    }
}

/// The paths of one world.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    root: PathBuf,
    netns_dir: PathBuf,
    manifests: PathBuf,
    logs: PathBuf,
    bpffs: PathBuf,
    cgroup2: PathBuf,
    own_cgroup: PathBuf,
}

impl Layout {
    /// The layout of a world made by this process.
    pub(crate) fn of_process(pid: u32) -> Self {
        Self::at(std::env::temp_dir().join(format!("{PREFIX}{pid}")))
    }

    /// The layout of the world in this directory.
    pub(crate) fn at(root: PathBuf) -> Self {
        let cgroup2 = root.join("cgroup");
        let own_cgroup = cgroup2.join(root.file_name().unwrap_or_default());
        Self {
            netns_dir: root.join("netns"),
            manifests: root.join("manifests"),
            logs: root.join("logs"),
            bpffs: root.join("bpf"),
            cgroup2,
            own_cgroup,
            root,
        }
    }

    /// The directory that holds everything.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// One file per network namespace.
    pub(crate) fn netns_dir(&self) -> &Path {
        &self.netns_dir
    }

    /// What the agent reads instead of an API server.
    pub(crate) fn manifests(&self) -> &Path {
        &self.manifests
    }

    /// Logs of the agent.
    pub(crate) fn logs(&self) -> &Path {
        &self.logs
    }

    /// The node's BPF file system.
    pub(crate) fn bpffs(&self) -> &Path {
        &self.bpffs
    }

    /// The machine's cgroup2 hierarchy.
    pub(crate) fn cgroup2(&self) -> &Path {
        &self.cgroup2
    }

    /// The cgroup that holds the world's other cgroups and no process.
    pub(crate) fn own_cgroup(&self) -> &Path {
        &self.own_cgroup
    }

    /// The cgroup of processes at a place: the node's own and its pods' are one, the client and other
    /// nodes' pods are outside of it.
    pub(crate) fn cgroup(&self, place: &Place) -> PathBuf {
        self.own_cgroup.join(match place {
            Place::Client | Place::Elsewhere(_) => "outside",
            Place::Node | Place::Pod(_) => "node",
        })
    }

    /// A place's network namespace.
    pub(crate) fn netns(&self, place: &Place) -> PathBuf {
        self.netns_dir.join(place.to_string())
    }

    /// What pods see as `/etc/resolv.conf`.
    pub(crate) fn resolv_conf(&self) -> PathBuf {
        self.root.join("resolv.conf")
    }

    /// What pods see as `/etc/nsswitch.conf`.
    pub(crate) fn nsswitch_conf(&self) -> PathBuf {
        self.root.join("nsswitch.conf")
    }

    /// The world's maker, whose mount namespace holds the mounts.
    pub(crate) fn owner(&self) -> Option<u32> {
        self.root.file_name().and_then(owner)
    }
}

/// The process id in the name of a world's directory or cgroup.
pub(crate) fn owner(name: &OsStr) -> Option<u32> {
    name.to_str()?.strip_prefix(PREFIX)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_worlds_have_an_owner() {
        for (name, expected) in [
            ("fairlead-17", Some(17)),
            ("fairlead-", None),
            ("fairlead-logs-17", None),
            ("fairlead", None),
            ("17", None),
            ("fairlead--1", None),
        ] {
            assert_eq!(owner(OsStr::new(name)), expected, "{name}");
        }
    }

    #[test]
    fn places_are_called_what_they_are_parsed_from() {
        for (name, place) in [
            ("node", Place::Node),
            ("client", Place::Client),
            ("hello-v1-0", Place::Pod("hello-v1-0".into())),
            ("node2-hello-v1-3", Place::Elsewhere("hello-v1-3".into())),
        ] {
            assert_eq!(name.parse::<Place>(), Ok(place.clone()));
            assert_eq!(place.to_string(), name);
        }
    }

    #[test]
    fn the_client_and_other_nodes_pods_are_outside_of_the_nodes_cgroup() {
        let layout = Layout::at(PathBuf::from("/tmp/fairlead-5"));
        let node = layout.cgroup(&Place::Node);
        assert_eq!(node, Path::new("/tmp/fairlead-5/cgroup/fairlead-5/node"));
        assert_eq!(layout.cgroup(&Place::Pod("db-0".into())), node);
        for outside in [Place::Client, Place::Elsewhere("db-1".into())] {
            assert!(!layout.cgroup(&outside).starts_with(&node), "{outside}");
        }
        assert_eq!(layout.owner(), Some(5));
    }
}
