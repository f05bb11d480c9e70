//! What fuzz targets do with bytes; tests do it with everything that was ever found. A target fails
//! by a panic.

mod answers;
mod connection;
mod objects;
mod requests;
mod spelling;

pub use self::{
    answers::answer,
    connection::{fields, hello, proxy_protocol},
    objects::{annotations, options, streams},
    requests::request,
    spelling::{host, path},
};
pub use crate::codec::h2::fuzzing::{fields as h2_fields, frames as h2_frames};

#[cfg(test)]
#[path = "../../fuzz/replay.rs"]
mod replay;

#[cfg(test)]
mod tests {
    use super::{
        replay::{corpus, replay},
        *,
    };
    use crate::routes::{ANNOTATIONS, OPTIONS};

    #[test]
    fn everything_fuzzing_has_found_is_taken() {
        replay("ingress_request", request);
        replay("ingress_answer", answer);
        replay("ingress_fields", fields);
        replay("ingress_h2_frames", h2_frames);
        replay("ingress_h2_fields", h2_fields);
        replay("ingress_path", path);
        replay("ingress_host", host);
        replay("ingress_annotations", annotations);
        replay("ingress_options", options);
        replay("ingress_streams", streams);
        replay("ingress_proxy_protocol", proxy_protocol);
        replay("ingress_hello", hello);
    }

    /// The fuzzer learns names from what it begins with.
    #[test]
    fn the_corpus_begins_with_every_name_that_is_parsed() {
        let annotations = ANNOTATIONS.iter().map(|annotation| annotation.name);
        let options = OPTIONS.iter().map(|option| option.name);
        for (target, names) in [
            ("ingress_annotations", annotations.collect::<Vec<_>>()),
            ("ingress_options", options.collect()),
        ] {
            let mut known = Vec::new();
            for (_, bytes) in corpus(target) {
                let text = String::from_utf8_lossy(&bytes).into_owned();
                let name = |pair: &str| pair.split_once('=').map(|(name, _)| name.to_owned());
                known.extend(text.split('\0').filter_map(name));
            }
            for name in names {
                assert!(known.iter().any(|known| known == name), "{target}: no input has {name}");
            }
        }
    }
}
