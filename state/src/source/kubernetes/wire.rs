//! What the API server sends: pages of a list, and events of a watch.

use std::sync::Arc;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::api::ApiError;
use crate::{
    change::Change,
    decode::{Decoded, Decoder, Item},
    model::{Kind, ObjectRef},
};

/// Marks the bookmark that ends the initial events of a streaming list (KEP-3157).
const INITIAL_EVENTS_END: &str = "k8s.io/initial-events-end";

/// A page of a list.
#[derive(Debug)]
pub(super) struct Page {
    /// An upsert, delete (none of ours) or refusal for each item.
    pub(super) changes: Vec<Change>,
    /// The version of the list as a whole.
    pub(super) version: Box<str>,
    /// Where the next page begins.
    pub(super) next: Option<String>,
}

/// An event of a watch.
#[derive(Debug)]
pub(super) enum Event {
    /// An object changed.
    Change { change: Change, version: Option<Box<str>> },
    /// Nothing changed up to this version.
    Bookmark { version: Box<str>, ends_initial: bool },
}

#[derive(Deserialize)]
struct RawList<'a> {
    #[serde(default)]
    metadata: RawListMeta,
    #[serde(borrow, default)]
    items: Option<Vec<&'a RawValue>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawListMeta {
    #[serde(default)]
    resource_version: Box<str>,
    r#continue: Option<String>,
}

#[derive(Deserialize)]
struct RawEvent<'a> {
    r#type: &'a str,
    #[serde(borrow)]
    object: &'a RawValue,
}

#[derive(Deserialize)]
struct RawBookmark {
    metadata: RawBookmarkMeta,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawBookmarkMeta {
    resource_version: Box<str>,
    #[serde(default)]
    annotations: Option<std::collections::BTreeMap<String, String>>,
}

#[derive(Default, Deserialize)]
struct RawStatus {
    #[serde(default)]
    code: u16,
    #[serde(default)]
    message: String,
}

/// Decodes a page item by item.
pub(super) fn page(
    decoder: &mut Decoder,
    kind: Kind,
    text: &str,
    origin: &Arc<str>,
) -> Result<Page, ApiError> {
    let list: RawList<'_> = serde_json::from_str(text).map_err(|e| garbled("list", kind, &e))?;
    let items = list.items.unwrap_or_default();
    let items = items.into_iter().map(|item| change(decoder, kind, item.get(), origin));
    Ok(Page {
        changes: items
            .map(|(change, _)| change)
            .collect::<Vec<_>>()
            .into_iter()
            .flatten()
            .collect(),
        version: list.metadata.resource_version,
        next: list.metadata.r#continue.filter(|token| !token.is_empty()),
    })
}

/// Decodes an event; `None` for one without meaning here.
pub(super) fn event(
    decoder: &mut Decoder,
    kind: Kind,
    line: &[u8],
    origin: &Arc<str>,
) -> Result<Option<Event>, ApiError> {
    let event: RawEvent<'_> =
        serde_json::from_slice(line).map_err(|e| garbled("event", kind, &e))?;
    let object = event.object.get();
    match event.r#type {
        "ADDED" | "MODIFIED" => {
            let (change, version) = change(decoder, kind, object, origin);
            Ok(change.map(|change| Event::Change { change, version }))
        }
        "DELETED" => Ok(deleted(kind, object)),
        "BOOKMARK" => bookmark(kind, object).map(Some),
        "ERROR" => {
            let status: RawStatus = serde_json::from_str(object).unwrap_or_default();
            Err(ApiError::status(status.code, status.message))
        }
        other => Err(ApiError::Garbled(format!("a {kind} event of the unknown type {other:?}"))),
    }
}

fn change(
    decoder: &mut Decoder,
    kind: Kind,
    object: &str,
    origin: &Arc<str>,
) -> (Option<Change>, Option<Box<str>>) {
    match decoder.json(kind, object, origin) {
        Ok(Item { version, decoded }) => (Some(into_change(decoded)), version),
        // Not even a name to refuse it by; no API server stores such an object.
        Err(unnamed) => {
            tracing::warn!("a {kind} from {origin} was left out: {unnamed}");
            (None, None)
        }
    }
}

fn into_change(decoded: Decoded) -> Change {
    match decoded {
        Decoded::Object(object) => Change::Upsert(object),
        // It may have been ours before: its label was taken away.
        Decoded::Ignored(object) => Change::Delete(object),
        Decoded::Refused(refusal) => Change::Refuse(refusal),
    }
}

fn deleted(kind: Kind, object: &str) -> Option<Event> {
    let (reference, version): (ObjectRef, _) = Decoder::reference(kind, object).ok()?;
    Some(Event::Change { change: Change::Delete(reference), version })
}

fn bookmark(kind: Kind, object: &str) -> Result<Event, ApiError> {
    let bookmark: RawBookmark =
        serde_json::from_str(object).map_err(|e| garbled("bookmark", kind, &e))?;
    let annotations = bookmark.metadata.annotations.unwrap_or_default();
    Ok(Event::Bookmark {
        version: bookmark.metadata.resource_version,
        ends_initial: annotations.get(INITIAL_EVENTS_END).is_some_and(|value| value == "true"),
    })
}

fn garbled(what: &str, kind: Kind, error: &serde_json::Error) -> ApiError {
    ApiError::Garbled(format!("a {kind} {what}: {error}"))
}
