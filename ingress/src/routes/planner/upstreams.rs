//! Services that routes and streams lead to: who uses them, and their endpoints of the moment.

use std::{collections::BTreeSet, sync::Arc};

use fairlead_state::{Key, ObjectRef, Snapshot};

use super::{
    super::{
        endpoints,
        upstream::{Problem, Protocol, Speech, Upstream, UpstreamKey},
    },
    Planner, Touched,
};
use crate::tls::{self, UpstreamTls};

/// One of them.
#[derive(Debug)]
pub(super) struct Tracked {
    pub(super) upstream: Arc<Upstream>,
    /// Of protocols with TLS; until prepared, and again when its Secret changed, `None`.
    tls: Option<Result<Arc<UpstreamTls>, Arc<str>>>,
    pub(super) users: BTreeSet<ObjectRef>,
}

impl Planner {
    pub(super) fn use_upstream(
        &mut self,
        key: &UpstreamKey,
        user: &ObjectRef,
        touched: &mut Touched,
    ) {
        let tracked = self.upstreams.entry(key.clone()).or_insert_with(|| {
            touched.linked.insert(key.clone());
            if let Some(secret) = key.tls.as_ref().and_then(|tls| tls.secret.clone()) {
                self.upstream_secrets.entry(secret).or_default().insert(key.clone());
            }
            let upstream = Arc::new(Upstream::new(key.clone()));
            Tracked { upstream, tls: None, users: BTreeSet::new() }
        });
        tracked.users.insert(user.clone());
    }

    pub(super) fn leave_upstream(
        &mut self,
        key: &UpstreamKey,
        user: &ObjectRef,
        touched: &mut Touched,
    ) {
        if let Some(tracked) = self.upstreams.get_mut(key) {
            tracked.users.remove(user);
            touched.unlinked.insert(key.clone());
        }
    }

    /// Whoever goes by routes of before still finds its endpoints there.
    pub(super) fn drop_unused(&mut self, key: &UpstreamKey) {
        if self.upstreams.get(key).is_some_and(|tracked| tracked.users.is_empty())
            && self.upstreams.remove(key).is_some()
        {
            self.external.leave(key);
            let secret = key.tls.as_ref().and_then(|tls| tls.secret.as_ref());
            if let Some(secret) = secret
                && let Some(users) = self.upstream_secrets.get_mut(secret)
            {
                users.remove(key);
                if users.is_empty() {
                    self.upstream_secrets.remove(secret);
                }
            }
        }
    }

    pub(super) fn refresh_service(&mut self, snapshot: &Snapshot, service: &Key) {
        let service_key = service.clone();
        let first = UpstreamKey {
            service: service_key,
            port: None,
            protocol: None,
            tls: None,
            udp: false,
            by_address: false,
        };
        let keys: Vec<UpstreamKey> = self
            .upstreams
            .range(first..)
            .map(|(key, _)| key)
            .take_while(|key| key.service == *service)
            .cloned()
            .collect();
        for key in &keys {
            self.refresh_upstream(snapshot, key);
        }
    }

    /// Connections made with what it held are not used again.
    pub(super) fn refresh_secret(&mut self, snapshot: &Snapshot, secret: &Key) {
        for key in self.upstream_secrets.get(secret).cloned().unwrap_or_default() {
            if let Some(tracked) = self.upstreams.get_mut(&key) {
                tracked.tls = None;
            }
            self.refresh_upstream(snapshot, &key);
        }
    }

    pub(super) fn refresh_upstream(&mut self, snapshot: &Snapshot, key: &UpstreamKey) {
        let Some(tracked) = self.upstreams.get_mut(key) else { return };
        let had_problem = tracked.upstream.endpoints().problem.clone();
        self.external.follow(snapshot, key);
        let resolved = endpoints::resolve(snapshot, key, &self.external).and_then(|resolved| {
            let protocol = key.protocol.unwrap_or(resolved.protocol);
            let tls = tracked.tls(snapshot, key).map_err(Problem::Tls)?;
            Ok((resolved.addresses, Speech { protocol, tls }))
        });
        let problem = match resolved {
            Ok((addresses, speech)) => {
                tracked.upstream.set(&addresses, &speech, None);
                None
            }
            Err(problem) => {
                tracked.upstream.set(&[], &Speech::default(), Some(problem.clone()));
                Some(problem)
            }
        };
        self.told += u64::from(problem != had_problem);
        if let Some(problem) = problem.filter(|problem| had_problem.as_ref() != Some(problem)) {
            tracing::warn!(service = %key, "{}; its paths answer 503", problem.describe(key));
        }
    }
}

impl Tracked {
    /// How TLS to its endpoints is spoken, prepared if need be.
    fn tls(
        &mut self,
        snapshot: &Snapshot,
        key: &UpstreamKey,
    ) -> Result<Option<Arc<UpstreamTls>>, Arc<str>> {
        let Some(wish) = &key.tls else { return Ok(None) };
        let prepare = || {
            let secret = wish.secret.as_ref().and_then(|key| snapshot.secrets().get(key));
            let is_h2 = key.protocol.is_some_and(Protocol::is_h2);
            let protocol = if is_h2 { &b"h2"[..] } else { b"http/1.1" };
            let prepared = tls::prepare(wish, &key.service, protocol, secret.map(|s| &**s));
            prepared.map(Arc::new).map_err(Arc::from)
        };
        self.tls.get_or_insert_with(prepare).clone().map(Some)
    }
}
