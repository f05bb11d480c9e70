//! What of the cluster the role reads.

use fairlead_state::Kind;

/// Kinds of objects the role reads whatever its settings. Of Secrets and ConfigMaps it needs those alone
/// that an Ingress or a setting names.
///
/// Where [`IngressConfig::external_names`] has any, it reads the Node of [`IngressConfig::node_name`], too.
///
/// [`IngressConfig::external_names`]: crate::IngressConfig::external_names
/// [`IngressConfig::node_name`]: crate::IngressConfig::node_name
pub const KINDS: [Kind; 6] = [
    Kind::Service,
    Kind::EndpointSlice,
    Kind::Ingress,
    Kind::IngressClass,
    Kind::Secret,
    Kind::ConfigMap,
];
