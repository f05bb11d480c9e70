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
    /// Of protocols with TLS; `None` until prepared.
    tls: Option<Result<Arc<UpstreamTls>, Arc<str>>>,
    /// Its Secret cannot be read by now, and why.
    broken: Option<Problem>,
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
            Tracked { upstream, tls: None, broken: None, users: BTreeSet::new() }
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
                let told = tracked.broken.take();
                tracked.prepare(snapshot, &key);
                self.told += u64::from(tracked.broken != told);
                if let Some(broken) =
                    tracked.broken.as_ref().filter(|new| told.as_ref() != Some(new))
                {
                    tracing::warn!(service = %key, "{}", broken.describe(&key));
                }
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
        if self.tls.is_none() {
            self.prepare(snapshot, key);
        }
        self.tls.clone().transpose()
    }

    /// Whoever breaks a Secret does not mean to take it away; whoever deletes it does. As with certificates
    /// that are shown.
    fn prepare(&mut self, snapshot: &Snapshot, key: &UpstreamKey) {
        let Some(wish) = &key.tls else { return };
        let secret = wish.secret.as_ref().and_then(|key| snapshot.secrets().get(key));
        let is_h2 = key.protocol.is_some_and(Protocol::is_h2);
        let protocol = if is_h2 { &b"h2"[..] } else { b"http/1.1" };
        let prepared = tls::prepare(wish, &key.service, protocol, secret.map(|s| &**s));
        let good = self.tls.take().and_then(Result::ok).filter(|_| secret.is_some());
        self.tls = Some(match (prepared, good) {
            (Ok(prepared), _) => Ok(Arc::new(prepared)),
            (Err(reason), Some(good)) => {
                let reason = format!("{reason}; its last good form is used");
                self.broken = Some(Problem::Tls(reason.into()));
                Ok(good)
            }
            (Err(reason), None) => Err(reason.into()),
        });
    }

    /// Why it has no endpoints, or has them by what is out of date.
    pub(super) fn problems(&self) -> impl Iterator<Item = Problem> {
        self.upstream.endpoints().problem.clone().into_iter().chain(self.broken.clone())
    }
}
