//! Configuration as people have it from elsewhere.

use std::fmt::Write as _;

/// kube-proxy's configuration with these fields.
pub(crate) fn kube_proxy_config(fields: &str) -> String {
    format!("apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\n{fields}")
}

/// The ConfigMap kubeadm makes of it.
pub(crate) fn kube_proxy_config_map(fields: &str) -> String {
    let mut text = "apiVersion: v1
kind: ConfigMap
metadata: {name: kube-proxy, namespace: kube-system}
data:
  config.conf: |
"
    .to_owned();
    for line in kube_proxy_config(fields).lines() {
        let _ = writeln!(text, "    {line}");
    }
    text
}
