//! Requests that strict matching would answer otherwise.

use fairlead_ingress::{IngressConfig, explain};
use fairlead_state::Snapshot;
use serde::{Deserialize, Serialize};

use crate::table::{Screen, Table};

/// One request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Otherwise {
    /// `NAMESPACE/NAME` of the Ingress whose path it was made from.
    pub(crate) ingress: String,
    pub(crate) host: String,
    pub(crate) path: String,
    /// What becomes of it with `--matching compat`: the rule, or the status.
    pub(crate) compat: String,
    /// With `--matching strict`.
    pub(crate) strict: String,
}

pub(super) fn otherwise(
    config: &IngressConfig,
    snapshot: &Snapshot,
) -> anyhow::Result<Vec<Otherwise>> {
    let found = explain::differences(config, snapshot)?;
    let one = |found: explain::Difference| Otherwise {
        ingress: found.ingress.to_string(),
        host: found.host,
        path: found.path,
        compat: found.compat,
        strict: found.strict,
    };
    Ok(found.into_iter().map(one).collect())
}

/// Nothing if there is none.
pub(super) fn show(all: &[Otherwise], screen: Screen) -> String {
    if all.is_empty() {
        return String::new();
    }
    let mut table = Table::new(&["INGRESS", "REQUEST", "COMPAT", "STRICT"]);
    for one in all {
        let request = format!("{}{}", one.host, one.path);
        let texts = [&one.ingress, &request, &one.compat, &one.strict];
        table.row(texts.map(|text| text.as_str().into()));
    }
    let text = table.text(screen.uncut());
    format!(
        "\nwith --matching strict these would be answered otherwise, and paths with dot segments or \
         empty ones refused:\n{text}"
    )
}
