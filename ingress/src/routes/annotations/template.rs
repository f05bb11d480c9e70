//! Text with nginx's variables (`https://$host$request_uri`) and captures (`/$1`), of the variables
//! that have a meaning here. Never a program: what is put in is never read again.

use std::fmt;

use http::HeaderName;

use super::value::{Unread, bad};
use crate::expression::Captures;

/// Longest text made of a template; the rest is cut.
const TEXT_BYTES_MAX: usize = 16 << 10;
/// Parts of one template.
const PIECES_MAX: usize = 64;
/// `$1` to `$9`.
const CAPTURES_MAX: usize = 9;

/// The text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Template {
    written: Box<str>,
    pieces: Box<[Piece]>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(Box<str>),
    Variable(Variable),
}

/// What an expression captured of one request, for longer than what it was captured of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Captured(Box<[Box<str>]>);

/// What a request is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Variable {
    /// `$host`: in lower case, without port.
    Host,
    /// `$http_host`: as received.
    HttpHost,
    /// `$best_http_host`: the one the client used.
    BestHttpHost,
    /// `$request_uri`: path and query, in normal form.
    RequestUri,
    /// `$escaped_request_uri`: the same, as the value of a query parameter.
    EscapedRequestUri,
    /// `$uri`, `$document_uri`: the path.
    Uri,
    /// `$args`, `$query_string`.
    Args,
    /// `$is_args`: `?` or nothing.
    IsArgs,
    /// `$scheme`: of the connection.
    Scheme,
    /// `$pass_access_scheme`: the one the client used.
    PassAccessScheme,
    /// `$request_method`.
    Method,
    /// `$remote_addr`.
    RemoteAddr,
    /// `$remote_user`: of a password, right or wrong.
    RemoteUser,
    /// `$server_port`: of the connection.
    ServerPort,
    /// `$pass_server_port`, `$pass_port`: the one the client used.
    PassPort,
    /// `$request_id`, `$req_id`.
    RequestId,
    /// `$namespace`: of the Ingress.
    Namespace,
    /// `$ingress_name`.
    IngressName,
    /// `$service_name`.
    ServiceName,
    /// `$http_NAME`.
    Header(HeaderName),
    /// `$cookie_NAME`.
    Cookie(Box<str>),
    /// `$arg_NAME`.
    Arg(Box<str>),
    /// `$1` to `$9`.
    Capture(usize),
}

impl Captured {
    /// `text`: how a group is written.
    pub(crate) fn of(captures: &Captures<'_>, text: impl Fn(&[u8]) -> String) -> Self {
        let group = |group| captures.get(group).map(&text).unwrap_or_default().into();
        Self((1..=CAPTURES_MAX).map(group).collect())
    }

    /// Puts one behind a text.
    pub(crate) fn write(&self, group: usize, out: &mut String) {
        let text = group.checked_sub(1).and_then(|i| self.0.get(i));
        out.push_str(text.map_or("", |text| text));
    }
}

impl Template {
    /// Reads one.
    ///
    /// # Errors
    /// Names the variable that has no meaning here.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let mut pieces = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('$') {
            if !before.is_empty() {
                pieces.push(Piece::Text(before.into()));
            }
            let (name, after) = name(after).ok_or("has a $ without a variable")?;
            let variable = variable(name);
            let known = variable.ok_or_else(|| format!("has ${name}, which is not known"))?;
            pieces.push(Piece::Variable(known));
            rest = after;
        }
        if !rest.is_empty() {
            pieces.push(Piece::Text(rest.into()));
        }
        if pieces.len() > PIECES_MAX {
            return Err("has too many variables".to_owned());
        }
        Ok(Self { written: text.into(), pieces: pieces.into() })
    }

    /// The text, as far as it is the same for all requests.
    pub(crate) fn prefix(&self) -> &str {
        match self.pieces.first() {
            Some(Piece::Text(text)) => text,
            _ => "",
        }
    }

    /// The text if it is the same for all requests.
    pub(crate) fn constant(&self) -> Option<&str> {
        match &*self.pieces {
            [] => Some(""),
            [Piece::Text(text)] => Some(text),
            _ => None,
        }
    }

    /// Whether it begins with a variable.
    pub(crate) fn begins_open(&self) -> bool {
        matches!(self.pieces.first(), Some(Piece::Variable(_)))
    }

    /// Whether something is put in that was captured.
    pub(crate) fn captures(&self) -> bool {
        self.pieces.iter().any(|piece| matches!(piece, Piece::Variable(Variable::Capture(_))))
    }

    /// Whether nothing can have been cut off a text.
    pub(crate) fn is_whole(text: &str) -> bool {
        // A cut is before a character, which has up to four bytes.
        text.len() + 4 <= TEXT_BYTES_MAX
    }

    /// The text for one request.
    pub(crate) fn render(&self, variable: impl Fn(&Variable, &mut String)) -> String {
        let mut text = String::new();
        for piece in &self.pieces {
            match piece {
                Piece::Text(constant) => text.push_str(constant),
                Piece::Variable(name) => variable(name, &mut text),
            }
            if text.len() > TEXT_BYTES_MAX {
                let end = text.floor_char_boundary(TEXT_BYTES_MAX);
                text.truncate(end);
                break;
            }
        }
        text
    }
}

impl fmt::Display for Template {
    /// As it was written.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.written)
    }
}

/// A host, perhaps with a port. With variables it is looked at once more when it is put together.
pub(super) fn host(value: &str) -> Result<Template, Unread> {
    let is_part = |b: u8| b.is_ascii_alphanumeric() || b".-_:[]${}".contains(&b);
    let template = Template::parse(value).map_err(|reason| Unread::Bad(reason.into()))?;
    let is_one = |text| crate::host::normalise(text).is_some();
    match template.constant().is_none_or(is_one) && value.bytes().all(is_part) {
        true => Ok(template),
        false => bad("is no host"),
    }
}

/// A variable's name after its `$`, and what follows it.
pub(crate) fn name(text: &str) -> Option<(&str, &str)> {
    if let Some(braced) = text.strip_prefix('{') {
        return braced.split_once('}').filter(|(name, _)| !name.is_empty());
    }
    let is_name = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    // nginx: a capture has one digit, which is not 0.
    let end = match text.bytes().next() {
        Some(b'1'..=b'9') => 1,
        _ => text.bytes().position(|b| !is_name(b)).unwrap_or(text.len()),
    };
    text.split_at_checked(end).filter(|(name, _)| !name.is_empty())
}

fn variable(name: &str) -> Option<Variable> {
    if let [digit @ b'1'..=b'9'] = name.as_bytes() {
        return Some(Variable::Capture(usize::from(digit - b'0')));
    }
    Some(match name {
        "host" => Variable::Host,
        "http_host" => Variable::HttpHost,
        "best_http_host" => Variable::BestHttpHost,
        "request_uri" => Variable::RequestUri,
        "escaped_request_uri" => Variable::EscapedRequestUri,
        "uri" | "document_uri" => Variable::Uri,
        "args" | "query_string" => Variable::Args,
        "is_args" => Variable::IsArgs,
        "scheme" => Variable::Scheme,
        "pass_access_scheme" => Variable::PassAccessScheme,
        "request_method" => Variable::Method,
        "remote_addr" | "binary_remote_addr" | "the_real_ip" => Variable::RemoteAddr,
        "remote_user" => Variable::RemoteUser,
        "server_port" => Variable::ServerPort,
        "pass_server_port" | "pass_port" => Variable::PassPort,
        "request_id" | "req_id" => Variable::RequestId,
        "namespace" => Variable::Namespace,
        "ingress_name" => Variable::IngressName,
        "service_name" => Variable::ServiceName,
        _ => {
            if let Some(field) = name.strip_prefix("http_") {
                let field = field.replace('_', "-");
                return HeaderName::from_bytes(field.as_bytes()).ok().map(Variable::Header);
            }
            if let Some(cookie) = name.strip_prefix("cookie_") {
                return Some(Variable::Cookie(cookie.into()));
            }
            return name.strip_prefix("arg_").map(|argument| Variable::Arg(argument.into()));
        }
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::expression::Expression;

    fn lossy(bytes: &[u8]) -> String {
        String::from_utf8_lossy(bytes).into_owned()
    }

    fn render(text: &str) -> Result<String, String> {
        let regex = Expression::compile("^(a)(b)?", false).unwrap();
        let captured = Captured::of(&regex.captures(b"a").unwrap(), lossy);
        let shown = |variable: &Variable, out: &mut String| match variable {
            Variable::Capture(group) => captured.write(*group, out),
            variable => out.push_str(&format!("<{variable:?}>")),
        };
        Template::parse(text).map(|template| template.render(shown))
    }

    #[test]
    fn variables_and_captures_are_put_in() {
        for (text, expected) in [
            ("plain", Ok("plain")),
            ("", Ok("")),
            ("/$1/x", Ok("/a/x")),
            ("/$2x", Ok("/x")),
            ("/$12", Ok("/a2")),
            ("$host", Ok("<Host>")),
            ("${host}x$uri", Ok("<Host>x<Uri>")),
            ("$http_x_user", Ok("<Header(\"x-user\")>")),
            ("$cookie_sid", Ok("<Cookie(\"sid\")>")),
            ("$arg_q", Ok("<Arg(\"q\")>")),
            ("$hostname", Err("has $hostname, which is not known")),
            ("$0", Err("has $0, which is not known")),
            ("a$", Err("has a $ without a variable")),
            ("${", Err("has a $ without a variable")),
            ("$ssl_client_raw_cert", Err("has $ssl_client_raw_cert, which is not known")),
        ] {
            let rendered = render(text);
            assert_eq!(rendered.as_deref().map_err(String::as_str), expected, "{text:?}");
        }
    }

    #[test]
    fn nginx_rift_cve_2026_42945_expansion_is_bounded() {
        let regex = Expression::compile("(.*)", false).unwrap();
        let long = vec![b'a'; 8 << 10];
        let captured = Captured::of(&regex.captures(&long).unwrap(), lossy);
        let template = Template::parse(&"$1".repeat(60)).unwrap();
        let text = template.render(|_, out| captured.write(1, out));
        assert_eq!(text.len(), TEXT_BYTES_MAX);
        assert!(Template::parse(&"$1".repeat(PIECES_MAX + 1)).is_err());
    }

    proptest! {
        #[test]
        fn no_text_breaks_it(text in "\\PC*") {
            let _ = render(&text);
        }
    }
}
