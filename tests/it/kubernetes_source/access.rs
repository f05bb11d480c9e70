//! Who is believed: the server by its certificate, the agent by its kubeconfig.

use fairlead_state::{
    Kind,
    source::kubernetes::{Kubernetes, KubernetesOptions},
};
use tempfile::TempDir;

use super::{Followed, options, service, services};
use crate::support::apiserver::ApiServer;

/// A kubeconfig with a part replaced.
fn altered(server: &ApiServer, directory: &TempDir, from: &str, to: &str) -> KubernetesOptions {
    let text = std::fs::read_to_string(server.kubeconfig()).unwrap();
    assert!(text.contains(from));
    let path = directory.path().join("config");
    std::fs::write(&path, text.replace(from, to)).unwrap();
    options(path)
}

#[tokio::test]
async fn the_servers_certificate_is_verified_by_the_authority_of_the_kubeconfig() {
    let server = ApiServer::start_with_tls().await;
    server.put(service("a", 80));
    let mut followed = Followed::start(&server, [Kind::Service]).await;
    let snapshot = followed.until("in sync", |_| true).await;
    assert_eq!(services(&snapshot), ["a:80"]);

    let other = std::fs::read_to_string(ApiServer::start_with_tls().await.kubeconfig()).unwrap();
    let authority = |text: &str| text.split("authority-data: ").nth(1).unwrap().to_owned();
    let own = authority(&std::fs::read_to_string(server.kubeconfig()).unwrap());
    let own = own.split('}').next().unwrap();
    let other = authority(&other);
    let directory = TempDir::new().unwrap();
    let options = altered(&server, &directory, own, other.split('}').next().unwrap());
    let mut followed = Followed::start_with(options, [Kind::Service]).await;
    followed.until_health("refused", |h| h.kinds[&Kind::Service].last_error.is_some()).await;
    let error = followed.running.health.borrow().kinds[&Kind::Service].last_error.clone().unwrap();
    assert!(error.contains("invalid peer certificate"), "{error}");
    assert!(!followed.is_published());
}

#[tokio::test]
async fn a_token_that_is_not_accepted_is_named() {
    let server = ApiServer::start().await;
    let directory = TempDir::new().unwrap();
    let options = altered(&server, &directory, "test-token", "stolen");
    let mut followed = Followed::start_with(options, [Kind::Service]).await;
    followed.until_health("refused", |h| h.kinds[&Kind::Service].last_error.is_some()).await;
    let error = followed.running.health.borrow().kinds[&Kind::Service].last_error.clone().unwrap();
    assert_eq!(&*error, "it answered 401: Unauthorized");
}

/// It was passed over, and the server asked without it for ever.
#[tokio::test]
async fn bug_a_kubeconfig_with_a_proxy_is_refused_with_a_cure() {
    let server = ApiServer::start().await;
    let directory = TempDir::new().unwrap();
    let proxied = "cluster: {proxy-url: 'http://user:secret@192.0.2.1:3128', server";
    let options = altered(&server, &directory, "cluster: {server", proxied);
    let error = Kubernetes::new(options).await.unwrap_err().to_string();
    assert!(error.contains("proxy-url") && error.contains("--api-server"), "{error}");
    assert!(!error.contains("secret"), "{error}");
}

#[tokio::test]
async fn a_kubeconfig_that_says_nothing_usable_is_an_error_naming_it() {
    let directory = TempDir::new().unwrap();
    let missing = directory.path().join("missing");
    let empty = directory.path().join("empty");
    std::fs::write(&empty, "").unwrap();
    for path in [missing, empty] {
        let error = Kubernetes::new(options(path.clone())).await.unwrap_err().to_string();
        assert!(error.starts_with(&format!("--kubeconfig {}: ", path.display())), "{error}");
        assert!(!error.contains('\n'), "{error}");
    }
}
