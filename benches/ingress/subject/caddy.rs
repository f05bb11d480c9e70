//! Debian's Caddy, by its JSON.

use serde_json::{Value, json};

use super::{Log, Place, UPSTREAM_IDLE_MAX};
use crate::{
    agent::Running,
    table::{self, Table},
};

pub(super) fn start(place: &Place, table: &Table) -> Running {
    let file = place.write("caddy.json", &config(place, table).to_string());
    let mut command = place.command("caddy");
    command.args(["run", "--config"]).arg(file);
    for variable in ["HOME", "XDG_DATA_HOME", "XDG_CONFIG_HOME"] {
        command.env(variable, &place.dir);
    }
    Running::start(&mut command, &place.file("errors"))
}

fn config(place: &Place, table: &Table) -> Value {
    let route = |host| {
        json!({
            "match": [{"host": [table::host(host)]}], "terminal": true,
            "handle": [handler(place, &table.upstreams[table.leads(host)].to_string())],
        })
    };
    let mut server = json!({
        "listen": [format!("tcp/{}", place.plain), format!("tcp/{}", place.tls)],
        "automatic_https": {"disable": true}, "protocols": ["h1", "h2"],
        "routes": (0..table.hosts()).map(route).collect::<Vec<_>>(),
        "tls_connection_policies": [{}],
    });
    let mut logs = json!({"default": {"level": "ERROR", "exclude": ["http.log.access"]}});
    if place.log == Log::On {
        server["logs"] = json!({});
        logs["access"] = json!({
            "writer": {"output": "file", "filename": place.file("access.log"), "roll": false},
            "encoder": {"format": "json"}, "include": ["http.log.access"],
        });
    }
    let files = place.pem_files(table, false).into_iter();
    let files: Vec<Value> =
        files.map(|(certificate, key)| json!({"certificate": certificate, "key": key})).collect();
    json!({
        "admin": {"disabled": true, "config": {"persist": false}},
        "logging": {"logs": logs},
        "apps": {
            "http": {
                "http_port": place.plain.port(), "https_port": place.tls.port(),
                "servers": {"all": server},
            },
            "tls": {"certificates": {"load_files": files}},
        },
    })
}

/// Caddy sets X-Forwarded-For, -Host and -Proto by itself; it does not say at which port it was asked.
fn handler(place: &Place, upstream: &str) -> Value {
    json!({
        "handler": "reverse_proxy", "upstreams": [{"dial": upstream}],
        "transport": {
            "protocol": "http", "compression": false, "keep_alive": {"max_idle_conns_per_host": UPSTREAM_IDLE_MAX},
        },
        "headers": {"request": {"set": {
            "X-Request-Id": ["{http.request.uuid}"],
            "X-Real-Ip": ["{http.request.remote.host}"],
            "X-Forwarded-Port": [place.plain.port().to_string()],
            "X-Forwarded-Scheme": ["{http.request.scheme}"],
            "X-Scheme": ["{http.request.scheme}"],
        }}},
    })
}
