//! One file: its documents, each with its place and verdict.

use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Value, value::RawValue};

use crate::{
    change::Refusal,
    decode::{self, Decoded, Decoder, Input, Json, Served, Tree, Unnamed},
    line::in_one_line,
    model::{Object, ObjectRef},
};

/// Nodes and events of one YAML document: room for a List of some 100,000 objects.
const YAML_NODES_MAX: usize = 8_000_000;
/// Depth of lists in lists.
const LIST_DEPTH_MAX: usize = 4;

const NO_OBJECT: &str = "a document without apiVersion and kind";

/// A file's objects in their order, and kinds of other software.
#[derive(Debug, Default)]
pub(crate) struct Content {
    pub(crate) claims: Vec<Claim>,
    /// `Deployment (apps/v1)`.
    pub(crate) foreign: std::collections::BTreeSet<String>,
}

/// A document says that an object is so.
#[derive(Clone, Debug)]
pub(crate) struct Claim {
    pub(crate) object: ObjectRef,
    /// File and line.
    pub(crate) place: Arc<str>,
    /// `None`: a good object that is none of ours.
    pub(crate) verdict: Result<Option<Object>, Refusal>,
}

/// Why a file as a whole cannot be used.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{file}:{line}: {reason}")]
pub(crate) struct Syntax {
    pub(crate) file: String,
    pub(crate) line: usize,
    pub(crate) reason: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Head {
    #[serde(default)]
    api_version: String,
    #[serde(default)]
    kind: String,
}

#[derive(Deserialize)]
struct JsonList<'a> {
    #[serde(borrow, default)]
    items: Option<Vec<&'a RawValue>>,
}

struct Parser<'a> {
    file: &'a str,
    text: &'a str,
    decoder: &'a mut Decoder,
    content: Content,
    /// How far lines have been counted: bytes, and line breaks among them.
    counted: (usize, usize),
}

/// Parses a file, by its name as JSON or YAML.
///
/// # Errors
/// A document does not parse or says not which object it is.
pub(crate) fn parse(file: &str, text: &str, decoder: &mut Decoder) -> Result<Content, Syntax> {
    let text = text.trim_start_matches('\u{feff}');
    let mut parser = Parser { file, text, decoder, content: Content::default(), counted: (0, 0) };
    if file.ends_with(".json") {
        parser.json()?;
    } else {
        parser.yaml()?;
    }
    Ok(parser.content)
}

impl<'a> Parser<'a> {
    /// JSON documents, one after the other.
    fn json(&mut self) -> Result<(), Syntax> {
        for document in serde_json::Deserializer::from_str(self.text).into_iter::<&RawValue>() {
            let document =
                document.map_err(|e| self.syntax(e.line(), without_place(&e.to_string())))?;
            self.json_document(document, 0)?;
        }
        Ok(())
    }

    fn json_document(&mut self, document: &'a RawValue, depth: usize) -> Result<(), Syntax> {
        let line = self.line_of(document.get());
        if !document.get().starts_with('{') {
            return Err(self.syntax(line, NO_OBJECT));
        }
        let head = Json(document.get()).read::<Head>().map_err(|e| self.syntax(line, &e))?;
        if !is_list(&head, depth) {
            return self.object(&head, Json(document.get()), line);
        }
        let list =
            Json(document.get()).read::<JsonList<'a>>().map_err(|e| self.syntax(line, &e))?;
        for item in list.items.unwrap_or_default() {
            self.json_document(item, depth + 1)?;
        }
        Ok(())
    }

    fn yaml(&mut self) -> Result<(), Syntax> {
        for (line, document) in yaml_documents(self.text) {
            let value = yaml_value(document).map_err(|(within, reason)| {
                self.syntax(line + within.saturating_sub(1), &reason)
            })?;
            if !value.is_null() {
                self.yaml_document(&value, first_line(line, document), 0)?;
            }
        }
        Ok(())
    }

    fn yaml_document(&mut self, value: &Value, line: usize, depth: usize) -> Result<(), Syntax> {
        if !value.is_object() {
            return Err(self.syntax(line, NO_OBJECT));
        }
        let head = Tree(value).read::<Head>().map_err(|e| self.syntax(line, &e))?;
        if !is_list(&head, depth) {
            return self.object(&head, Tree(value), line);
        }
        for item in value.get("items").and_then(Value::as_array).into_iter().flatten() {
            self.yaml_document(item, line, depth + 1)?;
        }
        Ok(())
    }

    fn object<'i>(
        &mut self,
        head: &Head,
        input: impl Input<'i>,
        line: usize,
    ) -> Result<(), Syntax> {
        let Head { api_version, kind } = head;
        if kind.is_empty() || api_version.is_empty() {
            return Err(self.syntax(line, NO_OBJECT));
        }
        let place: Arc<str> = format!("{}:{line}", self.file).into();
        let unnamed = |e: Unnamed| Syntax { file: self.file.to_owned(), line, reason: e.0 };
        let claim = match Served::of(api_version, kind) {
            Served::Unknown => {
                self.content.foreign.insert(format!("{kind} ({api_version})"));
                return Ok(());
            }
            Served::Version { kind, wanted } => {
                let (object, _) = decode::identify(kind, input).map_err(unnamed)?;
                let reason = format!("apiVersion {api_version:?} is not read; write {wanted}");
                refused(object, reason, place)
            }
            Served::Kind(kind) => {
                let item = self.decoder.decode(kind, input, &place).map_err(unnamed)?;
                claim(item.decoded, place)
            }
        };
        self.content.claims.push(claim);
        Ok(())
    }

    fn syntax(&self, line: usize, reason: &str) -> Syntax {
        Syntax { file: self.file.to_owned(), line, reason: in_one_line(reason).into() }
    }

    /// The line on which a part of the text begins. Parts are asked for from first to last: counted anew for each, the
    /// lines of a large List would take minutes.
    fn line_of(&mut self, part: &str) -> usize {
        let offset = (part.as_ptr() as usize).saturating_sub(self.text.as_ptr() as usize);
        let (from, lines) = if self.counted.0 <= offset { self.counted } else { (0, 0) };
        let between = self.text.as_bytes().get(from..offset).unwrap_or_default();
        let lines = lines + between.iter().filter(|byte| **byte == b'\n').count();
        self.counted = (offset, lines);
        1 + lines
    }
}

fn claim(decoded: Decoded, place: Arc<str>) -> Claim {
    match decoded {
        Decoded::Object(object) => {
            Claim { object: object.reference(), place, verdict: Ok(Some(object)) }
        }
        Decoded::Ignored(object) => Claim { object, place, verdict: Ok(None) },
        Decoded::Refused(refusal) => {
            Claim { object: refusal.object.clone(), place, verdict: Err(refusal) }
        }
    }
}

fn refused(object: ObjectRef, reason: String, place: Arc<str>) -> Claim {
    let (reason, origin) = (reason.into(), place.clone());
    let refusal = Refusal { object: object.clone(), reason, origin, class: None };
    Claim { object, place, verdict: Err(refusal) }
}

/// `List`, and the typed ones of the API: `ServiceList`.
fn is_list(head: &Head, depth: usize) -> bool {
    let Some(item) = head.kind.strip_suffix("List") else { return false };
    depth < LIST_DEPTH_MAX
        && (item.is_empty() || Served::of(&head.api_version, item) != Served::Unknown)
}

/// The documents and the line each begins on. A line that begins with `---` is a marker wherever it
/// stands (YAML 1.2, c-forbidden), as kubectl has it.
fn yaml_documents(text: &str) -> Vec<(usize, &str)> {
    let mut documents = Vec::new();
    let (mut start, mut start_line, mut offset) = (0, 1, 0);
    for (index, line) in text.split_inclusive('\n').enumerate() {
        let marker = line.strip_prefix("---");
        if offset > start && marker.is_some_and(|rest| rest.trim_start().len() < rest.len()) {
            documents.push((start_line, text.get(start..offset).unwrap_or_default()));
            (start, start_line) = (offset, index + 1);
        }
        offset += line.len();
    }
    documents.push((start_line, text.get(start..).unwrap_or_default()));
    documents
}

/// A document's value, or the line in it and what is wrong there.
fn yaml_value(document: &str) -> Result<Value, (usize, String)> {
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_nodes: YAML_NODES_MAX,
            max_events: YAML_NODES_MAX * 2,
        },
        with_snippet: false,
        // YAML 1.2: a Service may be called `y` and a namespace `no`.
        strict_booleans: true,
    };
    let empty = document.lines().all(|line| {
        let line = line.trim();
        line.is_empty() || line.starts_with('#') || line == "---" || line == "..."
    });
    if empty {
        return Ok(Value::Null);
    }
    serde_saphyr::from_str_with_options(document, options).map_err(|error| {
        let line = error.location().map_or(1, |location| location.line());
        let reason = one_line(&error.without_snippet().to_string());
        (usize::try_from(line).unwrap_or(1), without_place(&reason).to_owned())
    })
}

/// The line of the first key: what a person looks for.
fn first_line(start: usize, document: &str) -> usize {
    let blank = |line: &&str| {
        let line = line.trim();
        line.is_empty() || line.starts_with('#') || line == "---"
    };
    start + document.lines().take_while(blank).count()
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// A parser's reason without the line, which counts from the document and is said already.
fn without_place(reason: &str) -> &str {
    reason.rsplit_once(" at line ").map_or(reason, |(reason, _)| reason)
}

#[cfg(test)]
mod tests;
