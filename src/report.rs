//! What commands tell: each report is data with a stable shape (`-o json`) and a text for people.

pub(crate) mod bytes;
pub(crate) mod endpoints;
pub(crate) mod maps;
pub(crate) mod names;
pub(crate) mod part;
pub(crate) mod routes;
pub(crate) mod services;
pub(crate) mod status;
pub(crate) mod trace;
pub(crate) mod traffic;

#[cfg(test)]
pub(crate) mod tests {
    use serde::{Serialize, de::DeserializeOwned};
    use serde_json::Value;

    use super::{maps, names, routes, services, status, trace, traffic};
    use crate::{check, cleanup, doctor, version};

    const REFERENCE: &str =
        include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/reference/json.md"));

    /// What the reference shows of a command.
    pub(crate) fn shown(command: &str) -> Value {
        let (_, section) = REFERENCE.split_once(&format!("\n## {command}\n")).expect(command);
        let (_, block) = section.split_once("```text\n").expect(command);
        let (text, _) = block.split_once("```").expect(command);
        serde_json::from_str(text).unwrap_or_else(|error| panic!("{command}: {error}"))
    }

    /// A field that is missing there would come back, one that is none would be lost.
    fn is_whole<T: Serialize + DeserializeOwned>(command: &str) {
        let shown = shown(command);
        let read: T = serde_json::from_value(shown.clone())
            .unwrap_or_else(|error| panic!("docs/reference/json.md: {command}: {error}"));
        let printed = serde_json::to_value(&read).expect("JSON");
        assert_eq!(shown, printed, "docs/reference/json.md: {command}");
    }

    #[test]
    fn the_reference_shows_each_field_that_commands_print_and_no_other() {
        is_whole::<status::Status>("fairlead status");
        is_whole::<traffic::Traffic>("fairlead traffic");
        is_whole::<services::Services>("fairlead services");
        is_whole::<routes::Routes>("fairlead routes");
        is_whole::<names::Names>("fairlead names");
        is_whole::<trace::Trace>("fairlead trace");
        is_whole::<trace::live::Event>("fairlead trace --live");
        is_whole::<maps::Maps>("fairlead plan, fairlead dump");
        is_whole::<check::Report>("fairlead check");
        is_whole::<doctor::Report>("fairlead doctor");
        is_whole::<cleanup::Report>("fairlead cleanup");
        is_whole::<version::Version>("fairlead version");
    }
}
