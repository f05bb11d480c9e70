//! The agent, fed by the list/watch server of the tests.

use std::{path::PathBuf, sync::mpsc};

use serde_json::Value;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

use super::{Log, Place};
use crate::{
    agent::{self, Running},
    objects,
    support::apiserver::ApiServer,
    table::Table,
};

/// An API server in a thread of its own; it ends when this is dropped.
pub struct Api {
    kubeconfig: PathBuf,
    put: UnboundedSender<Value>,
}

impl Api {
    /// Starts one that holds these objects.
    fn serve(objects: Vec<Value>) -> Self {
        let (put, mut puts) = unbounded_channel::<Value>();
        let (ready, started) = mpsc::channel();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(async move {
                // As a real one: ten thousand Secrets are watched over HTTP/2, which takes TLS.
                let api = ApiServer::start_with_tls().await;
                api.put_all(objects);
                ready.send(api.kubeconfig()).unwrap();
                while let Some(object) = puts.recv().await {
                    api.put(object);
                }
            });
        });
        Self { kubeconfig: started.recv().unwrap(), put }
    }

    /// Changes an object.
    pub fn put(&self, object: Value) {
        self.put.send(object).unwrap();
    }
}

pub(super) fn start(place: &Place, table: &Table) -> (Running, Api) {
    let api = Api::serve(objects::all(table));
    let mut command = place.command(env!("CARGO_BIN_EXE_fairlead"));
    command.args(["agent", "--no-proxy", "--no-dns", "--node-name", "bench"]);
    command.args(["--healthz-listen", "", "--metrics-listen", &agent::free_address().to_string()]);
    // Nobody else sends it unasked.
    command.args(["--hsts", "", "--kubeconfig"]).arg(&api.kubeconfig);
    command.args(["--http-listen", &place.plain.to_string()]);
    command.args(["--https-listen", &place.tls.to_string()]);
    if place.log == Log::On {
        command.arg("--access-log").arg(place.file("access.log"));
    }
    (Running::start(&mut command, &place.file("errors")), api)
}
