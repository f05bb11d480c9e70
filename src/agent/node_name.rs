//! Which node this is.

use anyhow::Context;

use crate::exit::BadConfiguration;

/// `--node-name`, else `$NODE_NAME` (the downward API's usual name), else the host name, as kubelet does.
pub(crate) fn find(flag: Option<&str>) -> anyhow::Result<String> {
    if let Some(name) = flag {
        return checked(name);
    }
    if let Ok(name) = std::env::var("NODE_NAME") {
        return checked(&name);
    }
    let name = nix::unistd::gethostname().context("host name")?;
    checked(&name.to_string_lossy().to_lowercase())
}

fn checked(name: &str) -> anyhow::Result<String> {
    let is_label = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '.';
    if name.is_empty() || name.len() > 253 || !name.chars().all(is_label) {
        let message = format!("--node-name {name:?} is no node's name (lower-case DNS name)");
        return Err(BadConfiguration(message).into());
    }
    Ok(name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_no_node_can_have_is_refused() {
        for (name, is_good) in
            [("node-1", true), ("ip-10-0-0-1.eu", true), ("", false), ("a/b", false), ("A", false)]
        {
            assert_eq!(find(Some(name)).is_ok(), is_good, "{name:?}");
        }
    }
}
