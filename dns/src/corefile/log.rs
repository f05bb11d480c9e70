//! `log [NAMES...] [FORMAT] { class CLASS... }`.

use super::{CorefileError, blocks::Directive, tokens::Token, values};

/// Which replies `log` writes down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogClass {
    /// With records.
    Success,
    /// No such name, no such record.
    Denial,
    /// Every other code.
    Error,
    /// Any.
    All,
}

/// What a line is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogPiece {
    /// As it is written.
    Text(String),
    /// Of the question or its reply.
    Field(LogField),
}

/// Something about a question or its reply, by CoreDNS's placeholder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogField {
    /// `{type}`.
    Type,
    /// `{name}`.
    Name,
    /// `{class}`.
    Class,
    /// `{proto}`.
    Proto,
    /// `{remote}`.
    Remote,
    /// `{port}`.
    Port,
    /// `{local}`.
    Local,
    /// `{size}`, in bytes.
    Size,
    /// `{duration}`, in seconds.
    Duration,
    /// `{rcode}`.
    Code,
    /// `{rsize}`, in bytes.
    ReplySize,
    /// `{>rflags}`.
    ReplyFlags,
    /// `{>bufsize}`, in bytes.
    BufferSize,
    /// `{>do}`.
    DnssecOk,
    /// `{>id}`.
    Id,
    /// `{>opcode}`.
    Opcode,
    /// `{/log/class}`.
    ReplyClass,
    /// `{/log/type}`.
    ReplyType,
}

const FIELDS: [(&str, LogField); 18] = [
    ("{type}", LogField::Type),
    ("{name}", LogField::Name),
    ("{class}", LogField::Class),
    ("{proto}", LogField::Proto),
    ("{remote}", LogField::Remote),
    ("{port}", LogField::Port),
    ("{local}", LogField::Local),
    ("{size}", LogField::Size),
    ("{duration}", LogField::Duration),
    ("{rcode}", LogField::Code),
    ("{rsize}", LogField::ReplySize),
    ("{>rflags}", LogField::ReplyFlags),
    ("{>bufsize}", LogField::BufferSize),
    ("{>do}", LogField::DnssecOk),
    ("{>id}", LogField::Id),
    ("{>opcode}", LogField::Opcode),
    ("{/log/class}", LogField::ReplyClass),
    ("{/log/type}", LogField::ReplyType),
];

const COMMON: &str = "{remote}:{port} - {>id} \"{type} {class} {name} {proto} {size} {>do} \
                      {>bufsize}\" {rcode} {>rflags} {rsize} {duration}";

/// `log`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogOptions {
    /// Zones it is for; empty for all.
    pub zones: Vec<String>,
    /// Never empty.
    pub classes: Vec<LogClass>,
    /// What a line is made of.
    pub format: Vec<LogPiece>,
}

pub(super) fn read(line: &Directive) -> Result<LogOptions, CorefileError> {
    let (names, format) = match &line.args[..] {
        [names @ .., last] if last.text.contains('{') => (names, pieces(last, &last.text)?),
        names => (names, pieces(&line.name, COMMON)?),
    };
    let mut options = LogOptions { zones: values::zones(names)?, classes: vec![], format };
    for option in &line.body {
        option.no_body()?;
        if option.name.text != "class" {
            return Err(option.unknown("log", "class"));
        }
        for word in option.expect(1, 4)? {
            options.classes.push(match word.text.as_str() {
                "success" => LogClass::Success,
                "denial" => LogClass::Denial,
                "error" => LogClass::Error,
                "all" => LogClass::All,
                _ => return Err(word.error("class: write success, denial, error or all")),
            });
        }
    }
    if options.classes.is_empty() {
        options.classes.push(LogClass::All);
    }
    Ok(options)
}

/// Placeholders and what stands between them; braces around anything else are text.
fn pieces(word: &Token, format: &str) -> Result<Vec<LogPiece>, CorefileError> {
    let combined = format!("{COMMON} \"{{>opcode}}\"");
    let format = format.replace("{common}", COMMON).replace("{combined}", &combined);
    let mut pieces = vec![];
    let mut text = String::new();
    let mut rest = format.as_str();
    while let Some((before, after)) = rest.split_once('}') {
        rest = after;
        let open = before.rfind('{').unwrap_or(before.len());
        let (literal, name) = before.split_at_checked(open).unwrap_or((before, ""));
        let placeholder = format!("{name}}}");
        let field = FIELDS.iter().find(|(known, _)| *known == placeholder);
        if let Some((_, field)) = field {
            text.push_str(literal);
            if !text.is_empty() {
                pieces.push(LogPiece::Text(std::mem::take(&mut text)));
            }
            pieces.push(LogPiece::Field(*field));
        } else if name.starts_with("{/") {
            return Err(word.error(format!("log: {placeholder} is not known here: remove it")));
        } else {
            text.push_str(before);
            text.push('}');
        }
    }
    text.push_str(rest);
    if !text.is_empty() {
        pieces.push(LogPiece::Text(text));
    }
    Ok(pieces)
}
