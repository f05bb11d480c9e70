//! A list/watch server on the node of a world, as on a control plane's.

use std::sync::Arc;

use serde_json::Value;
use tokio::runtime::Runtime;

use super::{agent::Agent, apiserver::ApiServer, world::World};

/// The server, and what runs it.
pub(crate) struct Cluster {
    // The runtime goes last: the server is dropped inside of it.
    pub(crate) server: Arc<ApiServer>,
    runtime: Runtime,
}

impl Cluster {
    /// A server that holds these objects.
    pub(crate) fn start(world: &World, objects: impl IntoIterator<Item = Value>) -> Self {
        let runtime = world.runtime("node");
        let started = runtime.spawn(async { Arc::new(ApiServer::start().await) });
        let server = runtime.block_on(started).expect("a server");
        server.put_all(objects);
        Self { server, runtime }
    }

    /// An agent that reads it; it may not be ready yet.
    pub(crate) fn agent(&self, world: &World, more: &[&str]) -> Agent {
        let kubeconfig = self.server.kubeconfig().display().to_string();
        world.agent_with(&[&["--kubeconfig", &kubeconfig], more].concat())
    }

    /// Does something to the server that opens sockets.
    pub(crate) fn on_the_node(&self, work: impl FnOnce(&ApiServer) + Send + 'static) {
        let server = self.server.clone();
        let done = self.runtime.spawn(async move { work(&server) });
        self.runtime.block_on(done).expect("no panic");
    }

    /// A resource's objects, as soon as they are as wanted.
    pub(crate) fn await_all(
        &self,
        resource: &str,
        wanted: impl Fn(&[Value]) -> bool,
    ) -> Vec<Value> {
        self.runtime.block_on(self.server.await_all(resource, wanted))
    }
}
