//! Re-reads the `--config` file and kube-proxy's, and puts in force what can be while running.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use tokio::sync::watch::{Receiver, Sender, channel};

use super::{CommandLine, LIVE, Settings, watch::Watch};
use crate::{
    agent::{args::Args, signals::Hangup},
    exit::BadConfiguration,
    logging,
};

/// Keeps the settings at what the file says.
pub(crate) struct Keeper {
    words: CommandLine,
    file: Option<PathBuf>,
    kube_proxy_file: Option<PathBuf>,
    in_force: Settings,
    /// Keys whose new value waits for the next start, and that value.
    waiting: BTreeMap<String, Option<String>>,
    /// What is wrong with the file, when something is.
    refused: Option<String>,
    publisher: Sender<Arc<Args>>,
}

impl Keeper {
    /// A keeper of these settings, and where they can be followed.
    pub(crate) fn new(words: CommandLine, settings: Settings) -> (Self, Receiver<Arc<Args>>) {
        let file = settings.args.admin.config.clone();
        let kube_proxy_file = settings.args.drop_in.kube_proxy_config.clone();
        let (publisher, followed) = channel(Arc::new(settings.args.clone()));
        let keeper = Self {
            words,
            file,
            kube_proxy_file,
            in_force: settings,
            waiting: BTreeMap::new(),
            refused: None,
            publisher,
        };
        (keeper, followed)
    }

    /// Follows the files for ever; SIGHUP looks at them at once.
    pub(crate) async fn run(mut self, mut hangup: Hangup) {
        let mut config = watch("--config", self.file.as_deref());
        let mut kube_proxy = watch("--kube-proxy-config", self.kube_proxy_file.as_deref());
        loop {
            tokio::select! {
                () = changed("--config", &mut config) => {}
                () = changed("--kube-proxy-config", &mut kube_proxy) => {}
                () = hangup.next() => {}
            }
            self.reread();
        }
    }

    fn reread(&mut self) {
        if self.file.is_none() && self.kube_proxy_file.is_none() {
            return;
        }
        match Settings::load(&self.words, self.file.as_deref()) {
            Err(BadConfiguration(reason)) => {
                if self.refused.as_ref() != Some(&reason) {
                    tracing::error!("{reason}; the settings before stay in force");
                }
                self.refused = Some(reason);
            }
            Ok(new) => {
                if self.refused.take().is_some() {
                    let files = [&self.file, &self.kube_proxy_file];
                    let files: Vec<_> = files.into_iter().flatten().collect();
                    tracing::info!(?files, "can be used again");
                }
                self.take(new);
            }
        }
    }

    fn take(&mut self, new: Settings) {
        let Settings { args, kube_proxy, mut values } = new;
        if kube_proxy != self.in_force.kube_proxy {
            kube_proxy.warn();
            self.in_force.kube_proxy = kube_proxy;
        }
        let mut told = Vec::new();
        for key in LIVE {
            let (old, new) = (self.in_force.values.remove(key), values.remove(key));
            let show = |value: &Option<String>| value.clone().unwrap_or_else(|| "unset".to_owned());
            if old != new {
                told.push(format!("{key}: {} -> {}", show(&old), show(&new)));
            }
            if let Some(new) = new {
                self.in_force.values.insert(key.to_owned(), new);
            }
        }
        if !told.is_empty() {
            tracing::info!("settings changed: {}", told.join(", "));
            self.in_force.args.take_live(args);
            logging::set(&self.in_force.args.admin.log_level);
            self.publisher.send_replace(Arc::new(self.in_force.args.clone()));
        }
        let old = &self.in_force.values;
        let keys = old.keys().chain(values.keys()).filter(|key| !LIVE.contains(&key.as_str()));
        let differing = keys.filter(|key| old.get(*key) != values.get(*key));
        let waiting: BTreeMap<_, _> =
            differing.map(|key| (key.clone(), values.get(key).cloned())).collect();
        for (key, value) in &waiting {
            if self.waiting.get(key) != Some(value) {
                tracing::warn!("{key}: the change takes effect at the next start");
            }
        }
        self.waiting = waiting;
    }
}

fn watch(flag: &str, file: Option<&Path>) -> Option<Watch> {
    let file = file?;
    let failed = |error: &std::io::Error| {
        tracing::warn!(
            "{flag} {}: changes are not noticed ({error}; raise fs.inotify.max_user_instances?): \
             send SIGHUP after one",
            file.display()
        );
    };
    Watch::of(file).inspect_err(failed).ok()
}

/// Returns when the file may have changed; a watch that breaks is given up.
async fn changed(flag: &str, watch: &mut Option<Watch>) {
    let Some(watched) = watch else { return std::future::pending().await };
    if let Err(error) = watched.changed().await {
        tracing::warn!("{flag}: no longer watched ({error}): send SIGHUP instead");
        *watch = None;
    }
}

#[cfg(test)]
mod tests {
    use std::{ffi::OsString, fs, path::Path};

    use super::*;

    fn keeper(file: &Path) -> (Keeper, Receiver<Arc<Args>>) {
        let words: Vec<OsString> = ["--config".into(), file.into()].into();
        let words = CommandLine(words);
        let settings = Settings::load(&words, Some(file)).unwrap();
        Keeper::new(words, settings)
    }

    #[test]
    fn live_keys_change_others_wait_and_a_bad_file_changes_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("config.yaml");
        fs::write(&file, "dns-ttl: 7\n").unwrap();
        let (mut keeper, followed) = keeper(&file);
        let ttl = || followed.borrow().dns.dns_ttl;
        assert_eq!(ttl(), 7);

        fs::write(&file, "dns-ttl: 8\ncluster-domain: other.example\n").unwrap();
        keeper.reread();
        assert_eq!(ttl(), 8);
        assert_eq!(followed.borrow().dns.cluster_domain, "cluster.local");
        assert_eq!(keeper.waiting.keys().collect::<Vec<_>>(), ["cluster-domain"]);

        fs::write(&file, "dns-ttl: 9\nfrobnicate: 1\n").unwrap();
        keeper.reread();
        assert_eq!(ttl(), 8);
        assert!(keeper.refused.is_some());

        fs::remove_file(&file).unwrap();
        keeper.reread();
        assert_eq!(ttl(), 8);

        fs::write(&file, "").unwrap();
        keeper.reread();
        assert_eq!(ttl(), 30, "back to the default");
        assert!(keeper.waiting.is_empty() && keeper.refused.is_none());
    }

    #[tokio::test]
    async fn a_mounted_configmap_is_noticed_when_its_link_is_swapped() {
        use std::os::unix::fs::symlink;
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        for (version, text) in [("..1", "dns-ttl: 7\n"), ("..2", "dns-ttl: 8\n")] {
            fs::create_dir(at(version)).unwrap();
            fs::write(at(version).join("config.yaml"), text).unwrap();
        }
        symlink("..1", at("..data")).unwrap();
        symlink("..data/config.yaml", at("config.yaml")).unwrap();
        let (keeper, mut followed) = keeper(&at("config.yaml"));
        let following = tokio::spawn(keeper.run(Hangup::listen().unwrap()));
        // The watch stands once the task has had its first turn.
        tokio::task::yield_now().await;
        symlink("..2", at("..data_tmp")).unwrap();
        fs::rename(at("..data_tmp"), at("..data")).unwrap();
        let changed = followed.wait_for(|args| args.dns.dns_ttl == 8);
        let changed = tokio::time::timeout(std::time::Duration::from_secs(10), changed).await;
        assert!(changed.is_ok());
        following.abort();
    }
}
