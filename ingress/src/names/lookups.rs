//! Look-ups that are under way.

use std::{collections::HashMap, net::IpAddr, sync::Arc};

use fairlead_state::Name;
use tokio::task::{Id, JoinSet};

use crate::routes::Looked;

/// Each with the name it is for, however it ends.
#[derive(Debug, Default)]
pub(super) struct Lookups {
    running: JoinSet<Looked>,
    names: HashMap<Id, Name>,
}

impl Lookups {
    pub(super) fn begin(
        &mut self,
        name: Name,
        look_up: impl Future<Output = Looked> + Send + 'static,
    ) {
        let id = self.running.spawn(look_up).id();
        self.names.insert(id, name);
    }

    /// The next one to end; `None`: there is none. May be given up and called again.
    pub(super) async fn ended(&mut self) -> Option<(Name, Looked)> {
        let (id, looked) = match self.running.join_next_with_id().await? {
            Ok(ended) => ended,
            Err(error) => (error.id(), Err(error.to_string().into())),
        };
        self.names.remove(&id).map(|name| (name, looked))
    }
}

/// All that the system's resolver finds.
pub(super) async fn look_up(name: Name) -> Looked {
    if let Ok(ip) = name.parse::<IpAddr>() {
        return Ok(vec![ip]);
    }
    // Without its last dot it would be looked for in the cluster first (resolv.conf's `search`), where
    // `api.example.com` is a pod of Service `example` in whoever's namespace `com`.
    let dot = if name.contains('.') { "." } else { "" };
    match tokio::net::lookup_host((format!("{name}{dot}"), 0)).await {
        Ok(found) => Ok(found.map(|address| address.ip()).collect()),
        Err(error) => Err(Arc::from(error.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn broken() -> Looked {
        panic!("a resolver's fault")
    }

    #[tokio::test]
    async fn a_look_up_that_panics_gives_its_name_back() {
        let mut lookups = Lookups::default();
        assert_eq!(lookups.ended().await, None);
        lookups.begin("bad.example".into(), broken());
        let (name, looked) = lookups.ended().await.unwrap();
        assert_eq!(&*name, "bad.example");
        assert!(looked.is_err() && lookups.names.is_empty(), "{looked:?} {lookups:?}");

        let found: Looked = Ok(vec![IpAddr::from([192, 0, 2, 1])]);
        let answer = found.clone();
        lookups.begin("good.example".into(), async { answer });
        assert_eq!(lookups.ended().await, Some(("good.example".into(), found)));
    }

    #[tokio::test]
    async fn an_address_is_its_own_answer() {
        for (name, found) in [
            ("10.1.2.3", "10.1.2.3"),
            ("2001:db8::1", "2001:db8::1"),
            ("::ffff:10.1.2.3", "::ffff:10.1.2.3"),
        ] {
            let expected: Looked = Ok(vec![found.parse().unwrap()]);
            assert_eq!(look_up(name.into()).await, expected, "{name}");
        }
    }
}
